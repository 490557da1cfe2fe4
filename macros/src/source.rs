//! Reads an `impl` block without looking into the bodies, and gives it back without our attributes.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::parse::{Parse, ParseStream, Parser};
use syn::{
    Attribute, Error, FnArg, GenericParam, Generics, Ident, Meta, Pat, Signature, Token, Type, Visibility, braced,
};

use crate::args;
use crate::model::{Body, Kind, Param, Saga, Step, Undo};
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

fn is(path: &syn::Path, name: &str) -> bool {
    path.segments.last().is_some_and(|segment| segment.ident == name)
}

/// A block as far as its methods' signatures.
struct Block {
    generics: Generics,
    self_ty: Type,
    methods: Vec<(Vec<Attribute>, Signature)>,
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
        let mut methods = Vec::new();
        while !content.is_empty() {
            let attributes = content.call(Attribute::parse_outer)?;
            content.parse::<Visibility>()?;
            let fork = content.fork();
            if fork.parse::<Signature>().is_ok() {
                methods.push((attributes, content.parse()?));
            }
            skip_item(&content)?;
        }
        Ok(Self { generics, self_ty, methods })
    }
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

pub(crate) fn read(attribute: TokenStream, item: TokenStream, sink: &mut Sink) -> Option<Saga> {
    let args = args::saga(attribute, sink);
    let block: Block = sink.take(syn::parse2(item))?;
    check_generics(&block.generics, sink);
    let (mut steps, mut compensations) = (Vec::new(), Vec::new());
    for (attributes, signature) in block.methods {
        let markers: Vec<_> =
            attributes.iter().filter(|attr| is(attr.path(), "step") || is(attr.path(), "compensate")).collect();
        let Some(first) = markers.first() else { continue };
        if let Some(second) = markers.get(1) {
            let name = &signature.ident;
            sink.push(Error::new_spanned(
                second,
                format!("`{name}` is marked twice; a method is one step or one compensation"),
            ));
            continue;
        }
        let tokens = match &first.meta {
            Meta::List(list) => list.tokens.clone(),
            _ => TokenStream::new(),
        };
        if is(first.path(), "step") {
            let args = args::step(tokens, &signature.ident, sink);
            let body = body(signature, sink);
            steps.extend(args.zip(body).map(|(args, body)| Step { args, body }));
        } else {
            let args = args::compensate(tokens, sink);
            compensations.extend(body(signature, sink).map(|body| Undo { args, body }));
        }
    }
    Some(Saga { args: args?, generics: block.generics, self_ty: block.self_ty, steps, compensations })
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

fn body(signature: Signature, sink: &mut Sink) -> Option<Body> {
    let name = signature.ident.clone();
    if signature.asyncness.is_none() {
        sink.at(signature.fn_token.span, format!("`{name}` must be an `async fn`"));
        return None;
    }
    if let Some(param) = signature.generics.params.first() {
        sink.push(Error::new_spanned(
            param,
            format!("`{name}` cannot be generic; nobody could say what to call it with"),
        ));
        return None;
    }
    let mut inputs = signature.inputs.iter();
    match inputs.next() {
        Some(FnArg::Receiver(receiver)) if is_shared(receiver) => {}
        Some(other) => {
            sink.push(Error::new_spanned(
                other,
                format!("`{name}` takes `&self`: it may run on any worker, and again"),
            ));
            return None;
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
            return None;
        }
    }
    let capability = match inputs.next() {
        Some(FnArg::Typed(arg)) => capability(&arg.ty),
        _ => None,
    };
    let mut params = Vec::new();
    for input in inputs {
        params.push(sink.take(param(input))?);
    }
    Some(Body { signature, capability, params })
}

fn is_shared(receiver: &syn::Receiver) -> bool {
    let mut tokens = quote::ToTokens::to_token_stream(receiver).into_iter();
    matches!(tokens.next(), Some(TokenTree::Punct(and)) if and.as_char() == '&')
        && matches!(tokens.next(), Some(TokenTree::Ident(word)) if word == "self")
}

fn capability(ty: &Type) -> Option<(Kind, Type)> {
    let Type::Reference(reference) = ty else { return None };
    let is_mut = reference.mutability.is_some();
    let kind = if is_mut { Kind::Tx } else { Kind::Call };
    Some((kind, (*reference.elem).clone()))
}

fn param(input: &FnArg) -> syn::Result<Param> {
    let FnArg::Typed(arg) = input else { return Err(Error::new_spanned(input, "`self` comes first")) };
    let Pat::Ident(pattern) = &*arg.pat else {
        return Err(Error::new_spanned(
            &arg.pat,
            "a parameter's name says what it receives, so it cannot be a pattern; take it apart in the body",
        ));
    };
    let name: Ident = pattern.ident.clone();
    match &*arg.ty {
        Type::Reference(reference) => Ok(Param { name, ty: (*reference.elem).clone(), optional: false }),
        ty => match optional(ty) {
            Some(inner) => Ok(Param { name, ty: inner, optional: true }),
            None => Err(Error::new_spanned(
                ty,
                format!("`{name}` is received by reference: `&T`, or `Option<&T>` in a compensation"),
            )),
        },
    }
}

/// `T` of `Option<&T>`.
fn optional(ty: &Type) -> Option<Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Option")?;
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        syn::GenericArgument::Type(Type::Reference(reference)) => Some((*reference.elem).clone()),
        _ => None,
    }
}
