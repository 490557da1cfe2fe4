//! Reads an `impl` block without looking into the bodies, and gives it back without our attributes.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::parse::{Parse, ParseStream, Parser};
use syn::{
    Attribute, Error, FnArg, GenericParam, Generics, Ident, Meta, Pat, PatType, Signature, Token, Type, TypeReference,
    Visibility, braced,
};

use crate::args;
use crate::model::{Body, Capability, Kind, Param, Saga, Step, Undo};
use crate::sink::Sink;

/// The block as it was written, without `#[step]` and `#[compensate]`.
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
        && meta.parse2(attribute.stream()).is_ok_and(|path| is(&path, "step") || is(&path, "compensate"))
}

fn is_marker(attribute: &Attribute) -> bool {
    is(attribute.path(), "step") || is(attribute.path(), "compensate")
}

fn is(path: &syn::Path, name: &str) -> bool {
    path.segments.last().is_some_and(|segment| segment.ident == name)
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
                misplaced.extend(attributes.into_iter().filter(is_marker));
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
        sink.push(Error::new_spanned(marker.path(), "only a method is a step or a compensation"));
    }
    let (mut steps, mut compensations) = (Vec::new(), Vec::new());
    for (attributes, signature) in block.methods {
        let markers: Vec<_> = attributes.iter().filter(|attribute| is_marker(attribute)).collect();
        let by_name = |name| markers.iter().find(|marker| is(marker.path(), name));
        let Some(marker) = by_name("step").or_else(|| by_name("compensate")) else { continue };
        let name = &signature.ident;
        if let Some(second) = markers.get(1) {
            sink.push(Error::new_spanned(
                second,
                format!("`{name}` is marked twice; a method is one step or one compensation"),
            ));
        }
        if let Some(cfg) = attributes.iter().find(|attribute| attribute.path().is_ident("cfg")) {
            sink.push(Error::new_spanned(
                cfg,
                format!("`{name}` cannot depend on `cfg`: what is stored must not depend on how it was compiled"),
            ));
        }
        let tokens = match &marker.meta {
            Meta::List(list) => list.tokens.clone(),
            _ => TokenStream::new(),
        };
        if is(marker.path(), "step") {
            let args = args::step(tokens, name, sink);
            steps.push(Step { args, body: body(signature, sink) });
        } else {
            let args = args::compensate(tokens, sink);
            compensations.push(Undo { args, body: body(signature, sink) });
        }
    }
    Some(Saga { generics: block.generics, self_ty: block.self_ty, constants: block.constants, steps, compensations })
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

fn body(signature: Signature, sink: &mut Sink) -> Body {
    let known = sink.len();
    let name = signature.ident.clone();
    if signature.asyncness.is_none() {
        sink.at(signature.fn_token.span, format!("`{name}` must be an `async fn`"));
    }
    if let Some(param) = signature.generics.params.first() {
        sink.push(Error::new_spanned(
            param,
            format!("`{name}` cannot be generic; nobody could say what to call it with"),
        ));
    }
    let mut inputs = signature.inputs.iter().peekable();
    match inputs.next_if(|input| matches!(input, FnArg::Receiver(_))) {
        Some(FnArg::Receiver(receiver)) if is_shared(receiver) => {}
        Some(other) => {
            sink.push(Error::new_spanned(
                other,
                format!("`{name}` takes `&self`: it may run on any worker, and again"),
            ));
        }
        None => {
            sink.at(
                name.span(),
                format!(
                    "`{name}` takes `&self`, then its capability: {} or {}",
                    Kind::Tx.capability(),
                    Kind::Call.capability()
                ),
            );
        }
    }
    let capability = match inputs.next() {
        Some(FnArg::Typed(arg)) => capability(arg),
        _ => None,
    };
    let params = inputs.filter_map(|input| sink.take(param(input))).collect();
    Body { signature, capability, params, sound: known == sink.len() }
}

fn is_shared(receiver: &syn::Receiver) -> bool {
    let mut tokens = quote::ToTokens::to_token_stream(receiver).into_iter();
    matches!(tokens.next(), Some(TokenTree::Punct(and)) if and.as_char() == '&')
        && matches!(tokens.next(), Some(TokenTree::Ident(word)) if word == "self")
}

fn capability(arg: &PatType) -> Option<Capability> {
    let Type::Reference(reference) = &*arg.ty else { return None };
    if matches!(*reference.elem, Type::ImplTrait(_)) {
        return None;
    }
    let kind = if reference.mutability.is_some() { Kind::Tx } else { Kind::Call };
    let name = match &*arg.pat {
        Pat::Ident(pattern) => Some(pattern.ident.clone()),
        _ => None,
    };
    Some(Capability { kind, ty: (*reference.elem).clone(), name })
}

fn param(input: &FnArg) -> syn::Result<Param> {
    let FnArg::Typed(arg) = input else { return Err(Error::new_spanned(input, "`self` comes first")) };
    let Pat::Ident(pattern) = &*arg.pat else {
        return Err(Error::new_spanned(
            &arg.pat,
            "a parameter's name says what it receives, so it cannot be a pattern; take it apart in the body",
        ));
    };
    let name = pattern.ident.clone();
    let (reference, optional) = match &*arg.ty {
        Type::Reference(reference) => (Some(reference), false),
        ty => (optional(ty), true),
    };
    match reference {
        Some(reference)
            if reference.mutability.is_none()
                && reference.lifetime.is_none()
                && !matches!(*reference.elem, Type::ImplTrait(_)) =>
        {
            Ok(Param { name, ty: (*reference.elem).clone(), optional })
        }
        _ => Err(Error::new_spanned(
            &arg.ty,
            format!("`{name}` is received by plain reference: `&T`, or `Option<&T>` in a compensation"),
        )),
    }
}

/// `&T` of `Option<&T>`.
fn optional(ty: &Type) -> Option<&TypeReference> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Option")?;
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        syn::GenericArgument::Type(Type::Reference(reference)) => Some(reference),
        _ => None,
    }
}
