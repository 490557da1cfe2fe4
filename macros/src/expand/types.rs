//! The types of what is recorded, and where the glue is shown.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, Path};

use crate::model::{Body, Kind, Saga, Source, Step};

/// Shown there, but with names as the glue means them: a block that comes out of a macro has spans of two worlds.
pub(super) fn at(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// Names mean what they meant, and are shown there.
pub(super) fn respan(tokens: TokenStream, span: Span) -> TokenStream {
    let respanned = tokens.into_iter().map(|token| match token {
        TokenTree::Group(group) => {
            let mut group = Group::new(group.delimiter(), respan(group.stream(), span));
            group.set_span(span);
            TokenTree::Group(group)
        }
        // It has no meaning of its own.
        TokenTree::Punct(mut punct) => {
            punct.set_span(span);
            TokenTree::Punct(punct)
        }
        mut token => {
            token.set_span(token.span().located_at(span));
            token
        }
    });
    respanned.collect()
}

/// The type that the method returns, or its name if it returns nothing.
pub(super) fn returned_at(body: &Body) -> Span {
    body.returned().map_or_else(|| body.name().span(), Spanned::span)
}

/// What a body returns, seen as its kind wants it. All on the type that is written, and as if written there, so that
/// another one is reported there, and once: rustc does not repeat a message word for word.
pub(super) fn returned(krate: &Path, body: &Body, kind: Kind) -> TokenStream {
    let seen = match kind {
        Kind::Tx | Kind::Call => quote!(StepOutput),
        Kind::Request => quote!(BeginsRequest),
        Kind::Signal => quote!(BeginsSignal),
        Kind::Child => quote!(BeginsChild),
    };
    let span = returned_at(body);
    let ty = body.returned().map_or_else(|| quote!(()), |ty| quote!(#ty));
    let inside = respan(quote!(#ty as #krate::__private::#seen), span);
    quote_spanned!(span=> <#inside>)
}

/// What a step records when it succeeds; of one that runs for every item of a list, what it records of one.
pub(super) fn output_type(krate: &Path, step: &Step) -> TokenStream {
    let returned = returned(krate, &step.body, step.args.kind.unwrap_or(Kind::Tx));
    quote_spanned!(returned_at(&step.body)=> #returned::Output)
}

/// What the output of a step is to others, where it is there: a list, if it runs for every item of one.
pub(super) fn whole_type(krate: &Path, step: &Step) -> TokenStream {
    let output = output_type(krate, step);
    if step.args.for_each.is_none() {
        return output;
    }
    let one = if step.args.skippable.is_some() { quote!(::core::option::Option<#output>) } else { output };
    quote!(#krate::__private::Vec<#one>)
}

/// What the output of a step is to others: an `Option`, if there may be none.
pub(super) fn readers_type(krate: &Path, step: &Step, since: u32) -> TokenStream {
    let whole = whole_type(krate, step);
    if step.may_lack_output(since) { quote!(::core::option::Option<#whole>) } else { whole }
}

/// The recorded names of what a body receives.
pub(super) fn reads(krate: &Path, saga: &Saga, body: &Body) -> TokenStream {
    let names = body.params.iter().map(|param| match saga.source(&param.name) {
        Some(Source::Step(step)) => saga.steps[step].recorded_name(),
        _ => param.name.to_string(),
    });
    quote!(#krate::__private::Cow::Borrowed(&[#(#krate::__private::Cow::Borrowed(#names)),*]))
}

/// The trait bound of a check, shown where the type is written.
pub(super) fn check(krate: &Path, name: &str, recorded: &TokenStream, given: &TokenStream, span: Span) -> TokenStream {
    let (name, recorded) = (Ident::new(name, at(span)), respan(recorded.clone(), span));
    let given = respan(given.clone(), span);
    quote_spanned!(at(span)=> #krate::__private::#name::<#recorded, #given>();)
}
