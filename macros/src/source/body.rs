//! Reads the signature of a method that is the body of a step, or of what a step names.

use proc_macro2::TokenTree;
use syn::{Error, FnArg, Pat, Signature, Type, TypeReference};

use crate::model::{Body, Capability, Kind, Param};
use crate::sink::Sink;

/// What a method must look like.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Step(Kind),
    /// A step whose kind was mistaken: as it is written.
    Unknown,
    /// An `async fn` with a capability, or a plain `fn` that returns a request.
    Undo,
    Probe,
    Upcast,
}

impl Form {
    /// Whether it must be a plain `fn`; `None` if both are right.
    fn is_plain(self) -> Option<bool> {
        match self {
            Self::Step(kind) => Some(kind.waits()),
            Self::Unknown | Self::Undo => None,
            Self::Probe => Some(false),
            Self::Upcast => Some(true),
        }
    }

    /// What a plain `fn` of this form is for.
    fn purpose(self) -> String {
        match self {
            Self::Step(kind) => format!("a `{}` step only says what it waits for", kind.key()),
            _ => "what makes up an output only computes".to_owned(),
        }
    }
}

pub(super) fn body(signature: Signature, form: Form, sink: &mut Sink) -> Body {
    let known = sink.len();
    let name = signature.ident.clone();
    match (signature.asyncness, form.is_plain()) {
        (None, Some(false)) => sink.at(signature.fn_token.span, format!("`{name}` must be an `async fn`")),
        (Some(asyncness), Some(true)) => {
            sink.push(Error::new_spanned(asyncness, format!("`{name}` is a plain `fn`: {}", form.purpose())));
        }
        _ => {}
    }
    let is_plain = form.is_plain().unwrap_or(signature.asyncness.is_none());
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
        None if is_plain => {
            sink.at(
                name.span(),
                format!("`{name}` takes `&self`, then what it reads: `input` and steps, by reference"),
            );
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
    let mut capability = None;
    if !is_plain {
        capability = inputs.next().and_then(self::capability);
    } else if let Some(FnArg::Typed(given)) = inputs.next_if(|input| is_capability(input)) {
        match form {
            Form::Undo => sink.at(
                signature.fn_token.span,
                format!(
                    "`{name}` must be an `async fn`; a plain one undoes by a request, and receives only what it reads"
                ),
            ),
            Form::Step(_) | Form::Upcast if signature.asyncness.is_none() => sink.push(Error::new_spanned(
                &given.ty,
                format!("`{name}` receives no capability, only what it reads: {}", form.purpose()),
            )),
            // What is mistaken about it was said.
            _ => {}
        }
    }
    let params = inputs.filter_map(|input| sink.take(param(input))).collect();
    Body { signature, capability, params, sound: known == sink.len() }
}

fn is_shared(receiver: &syn::Receiver) -> bool {
    let mut tokens = quote::ToTokens::to_token_stream(receiver).into_iter();
    matches!(tokens.next(), Some(TokenTree::Punct(and)) if and.as_char() == '&')
        && matches!(tokens.next(), Some(TokenTree::Ident(word)) if word == "self")
}

fn capability(input: &FnArg) -> Option<Capability> {
    let FnArg::Typed(arg) = input else { return None };
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
            format!("`{name}` is received by plain reference: `&T`, or `Option<&T>` where there may be none"),
        )),
    }
}

/// It looks like one: only what is said about it depends on it.
fn is_capability(input: &FnArg) -> bool {
    let FnArg::Typed(arg) = input else { return false };
    let Type::Reference(reference) = &*arg.ty else { return false };
    let is_call = |path: &syn::TypePath| path.path.segments.last().is_some_and(|last| last.ident == "Call");
    reference.mutability.is_some() || matches!(&*reference.elem, Type::Path(path) if is_call(path))
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
