//! Reads an `impl` block without looking into the bodies, and gives it back without our attributes.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Attribute, Error, GenericParam, Generics, Ident, Meta, Signature, Token, Type, Visibility, braced};

use crate::args;
use crate::model::{Helper, Saga, Step};
use crate::sink::Sink;

mod body;

use body::{Form, body};

const MARKERS: [&str; 4] = ["step", "compensate", "probe", "upcast"];

/// The block as it was written, without our attributes.
pub(crate) fn without_markers(item: TokenStream) -> TokenStream {
    let mut tokens: Vec<TokenTree> = item.into_iter().collect();
    if let Some(TokenTree::Group(block)) = tokens.last_mut()
        && block.delimiter() == Delimiter::Brace
    {
        let mut stripped = Group::new(Delimiter::Brace, strip(block.stream()));
        stripped.set_span(block.span());
        *block = stripped;
    }
    tokens.into_iter().collect()
}

fn strip(block: TokenStream) -> TokenStream {
    let mut kept: Vec<TokenTree> = Vec::new();
    for token in block {
        let is_marker = match (&token, kept.last()) {
            (TokenTree::Group(group), Some(TokenTree::Punct(hash))) if hash.as_char() == '#' => marker(group),
            _ => false,
        };
        if is_marker {
            kept.pop();
        } else {
            kept.push(token);
        }
    }
    kept.into_iter().collect()
}

fn marker(attribute: &Group) -> bool {
    let meta = |input: ParseStream<'_>| {
        let path = input.call(syn::Path::parse_mod_style)?;
        input.parse::<TokenStream>()?;
        Ok(path)
    };
    attribute.delimiter() == Delimiter::Bracket
        && meta.parse2(attribute.stream()).is_ok_and(|path| marks(&path).is_some())
}

/// Which of our attributes it is.
fn marks(path: &syn::Path) -> Option<&'static str> {
    let last = &path.segments.last()?.ident;
    MARKERS.into_iter().find(|name| last == name)
}

/// A block as far as its methods' signatures.
struct Block {
    generics: Generics,
    self_ty: Type,
    methods: Vec<(Vec<Attribute>, Signature)>,
    /// The names of its constants.
    constants: Vec<Ident>,
    /// The markers of what is no method.
    misplaced: Vec<Attribute>,
}

impl Parse for Block {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        input.call(Attribute::parse_outer)?;
        if !input.peek(Token![impl]) {
            return Err(input.error("#[saga] stands on an `impl` block: `#[saga(…)] impl PlaceOrder { … }`"));
        }
        input.parse::<Token![impl]>()?;
        let mut generics: Generics = input.parse()?;
        let self_ty: Type = input.parse()?;
        if input.peek(Token![for]) {
            return Err(input.error("#[saga] stands on an `impl` of the type itself, not of a trait"));
        }
        generics.where_clause = input.parse()?;
        let content;
        braced!(content in input);
        content.call(Attribute::parse_inner)?;
        let (mut methods, mut constants, mut misplaced) = (Vec::new(), Vec::new(), Vec::new());
        while !content.is_empty() {
            let attributes = content.call(Attribute::parse_outer)?;
            content.parse::<Visibility>()?;
            let fork = content.fork();
            if fork.parse::<Signature>().is_ok() {
                methods.push((attributes, content.parse()?));
            } else {
                constants.extend(constant(&content));
                misplaced.extend(attributes.into_iter().filter(|it| marks(it.path()).is_some()));
            }
            skip_item(&content)?;
        }
        Ok(Self { generics, self_ty, methods, constants, misplaced })
    }
}

/// The name in `const NAME: …`, without moving on.
fn constant(input: ParseStream<'_>) -> Option<Ident> {
    let fork = input.fork();
    fork.parse::<Token![const]>().and_then(|_| fork.parse()).ok()
}

/// To the end of a body or of a semicolon.
fn skip_item(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() {
        match input.parse::<TokenTree>()? {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return Ok(()),
            TokenTree::Punct(punct) if punct.as_char() == ';' => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

/// The saga as far as it could be read. What is mistaken stays in it, so that others can still be told about it.
pub(crate) fn read(item: TokenStream, sink: &mut Sink) -> Option<Saga> {
    let block: Block = sink.take(syn::parse2(item))?;
    check_generics(&block.generics, sink);
    for marker in &block.misplaced {
        sink.push(Error::new_spanned(marker.path(), "only a method is a step, or what a step names"));
    }
    let Block { generics, self_ty, methods, constants, .. } = block;
    let (steps, compensations, probes, upcasts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut saga = Saga { generics, self_ty, constants, steps, compensations, probes, upcasts };
    for (attributes, signature) in methods {
        let markers: Vec<_> = attributes.iter().filter_map(|it| Some((marks(it.path())?, it))).collect();
        let by_name = |name| markers.iter().find(|(marks, _)| *marks == name);
        // Marked twice, it is what comes first in the list, so that it misses where it is missed most.
        let Some((marks, marker)) = MARKERS.into_iter().find_map(by_name).copied() else { continue };
        check_attributes(&signature.ident, &attributes, &markers, sink);
        let tokens = match &marker.meta {
            Meta::List(list) => list.tokens.clone(),
            _ => TokenStream::new(),
        };
        let name = &signature.ident;
        match marks {
            "step" => {
                let args = args::step(tokens, name, sink);
                let form = args.kind.map_or(Form::Unknown, Form::Step);
                saga.steps.push(Step { args, body: body(signature, form, sink) });
            }
            "compensate" => {
                let args = args::helper(tokens, "#[compensate]", sink);
                saga.compensations.push(Helper { args, body: body(signature, Form::Undo, sink) });
            }
            "probe" => {
                let args = args::helper(tokens, "#[probe]", sink);
                saga.probes.push(Helper { args, body: body(signature, Form::Probe, sink) });
            }
            _ => {
                let args = args::upcast(tokens, sink);
                saga.upcasts.push(Helper { args, body: body(signature, Form::Upcast, sink) });
            }
        }
    }
    Some(saga)
}

fn check_attributes(name: &Ident, all: &[Attribute], markers: &[(&str, &Attribute)], sink: &mut Sink) {
    if let Some((_, second)) = markers.get(1) {
        sink.push(Error::new_spanned(
            second,
            format!("`{name}` is marked twice; a method is one step, or one thing that a step names"),
        ));
    }
    if let Some(cfg) = all.iter().find(|attribute| attribute.path().is_ident("cfg")) {
        sink.push(Error::new_spanned(
            cfg,
            format!("`{name}` cannot depend on `cfg`: what is stored must not depend on how it was compiled"),
        ));
    }
}

fn check_generics(generics: &Generics, sink: &mut Sink) {
    for param in &generics.params {
        match param {
            GenericParam::Lifetime(lifetime) => {
                sink.push(Error::new_spanned(
                    lifetime,
                    "a saga outlives the code that registers it; it cannot have a lifetime",
                ));
            }
            GenericParam::Const(constant) => {
                sink.push(Error::new_spanned(
                    &constant.ident,
                    "a saga cannot have const parameters; what is stored must not depend on them",
                ));
            }
            GenericParam::Type(_) => {}
        }
    }
}
