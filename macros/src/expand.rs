//! Lowers a saga to the public traits `Saga` and `Steps`. The logic is in `amends`, not in these tokens.

use std::time::Duration;

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Ident, Path, ReturnType};

use crate::args;
use crate::model::{Attempts, Body, Capability, Kind, Param, Retry, Saga, SagaArgs, Step};
use crate::sink::Sink;
use crate::source;
use crate::validate::{Graph, validate};

/// The block as it was, and either the glue or the mistakes.
pub(crate) fn saga(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut sink = Sink::default();
    let args = args::saga(attribute, &mut sink);
    let saga = source::read(item.clone(), &mut sink);
    let graph = saga.as_ref().and_then(|saga| validate(saga, &mut sink));
    let glue = match (args, saga, graph) {
        (Some(args), Some(saga), Some(graph)) => Some(glue(&args, &saga, &graph)),
        _ => None,
    };
    let block = source::without_markers(item);
    let errors = sink.into_tokens();
    // The form of a method is given, whether or not it waits for something, looks at `self` or reads something small.
    let allowed = quote!(clippy::unused_async, clippy::unused_self, clippy::trivially_copy_pass_by_ref);
    quote!(#[allow(#allowed)] #block #glue #errors)
}

fn glue(args: &SagaArgs, saga: &Saga, graph: &Graph) -> TokenStream {
    let krate = &args.krate;
    let (impl_generics, _, where_clause) = saga.generics.split_for_impl();
    let (self_ty, input) = (&saga.self_ty, &args.input);
    let input = quote_spanned!(at(input.span())=> type Input = #input;);
    let (name, version) = (&args.name, args.version);
    let steps = saga.steps.iter().enumerate().map(|(index, step)| definition(args, saga, graph, index, step));
    let constants = saga.steps.iter().filter_map(|step| constant(saga, step));

    let mut steps_generics = saga.generics.clone();
    let tx_span = saga.tx().map_or_else(Span::call_site, |tx| at(tx.span()));
    let tx = saga.tx().map_or_else(
        || {
            let any: Path = syn::parse_quote!(__AmendsTx);
            steps_generics.params.push(syn::parse_quote!(__AmendsTx: #krate::StepTransaction));
            quote!(#any)
        },
        |tx| quote!(#tx),
    );
    let (steps_impl, ..) = steps_generics.split_for_impl();
    // On the transaction's type, so that what is no transaction is reported there.
    let steps_of_tx = respan(quote!(#krate::Steps<#tx>), tx_span);
    let execute = saga.steps.iter().enumerate().map(|(index, step)| arm(args, saga, index, &step.body, true));
    let compensate =
        saga.compensations.iter().zip(&graph.undoes).map(|(undo, &step)| arm(args, saga, step, &undo.body, false));

    quote! {
        #[allow(dead_code, unreachable_pub, missing_docs)]
        impl #impl_generics #self_ty #where_clause {
            /// The graph of this saga; its text is meant for a golden test.
            pub const DEFINITION: &'static #krate::Definition = <Self as #krate::Saga>::DEFINITION;

            /// A business key: the same key starts this saga once.
            pub fn key(key: impl ::core::fmt::Display) -> #krate::Key<Self> {
                <Self as #krate::Saga>::key(key)
            }

            /// No business key: every start is another saga.
            pub fn unkeyed() -> #krate::Key<Self> {
                <Self as #krate::Saga>::unkeyed()
            }

            #(#constants)*
        }

        impl #impl_generics #krate::Saga for #self_ty #where_clause {
            #input

            const DEFINITION: &'static #krate::Definition = {
                const STEPS: &[#krate::Step] = &[#(#steps),*];
                &#krate::Definition {
                    name: #krate::__private::Cow::Borrowed(#name),
                    version: #version,
                    steps: #krate::__private::Cow::Borrowed(STEPS),
                }
            };
        }

        // What a compensation returns is not recorded, so a step's output may be nothing.
        #[allow(clippy::let_unit_value, clippy::ignored_unit_patterns)]
        impl #steps_impl #steps_of_tx for #self_ty #where_clause {
            fn execute<'__amends>(
                &'__amends self,
                __amends_step: usize,
                __amends_capability: #krate::Capability<'__amends, #tx>,
                __amends_data: #krate::Data,
            ) -> #krate::StepFuture<'__amends> {
                match __amends_step {
                    #(#execute)*
                    _ => ::core::unreachable!("the definition has no step {}", __amends_step),
                }
            }

            fn compensate<'__amends>(
                &'__amends self,
                __amends_step: usize,
                __amends_capability: #krate::Capability<'__amends, #tx>,
                __amends_data: #krate::Data,
            ) -> #krate::StepFuture<'__amends> {
                match __amends_step {
                    #(#compensate)*
                    _ => ::core::unreachable!("step {} has no compensation", __amends_step),
                }
            }
        }
    }
}

/// The name of a step as a constant, such as `CHARGE`, unless the block has one of its own.
fn constant(saga: &Saga, step: &Step) -> Option<TokenStream> {
    let constant = step.body.name().unraw().to_string().to_uppercase();
    // On the method's name, so that a clash with a constant of the user's is reported there.
    let is_free = |constant: &Ident| constant != "DEFINITION" && !saga.constants.contains(constant);
    let constant = syn::parse_str::<Ident>(&constant).ok().filter(is_free)?;
    let constant = Ident::new(&constant.to_string(), step.body.name().span());
    let name = step.recorded_name();
    Some(quote! {
        #[doc(hidden)]
        pub const #constant: &'static ::core::primitive::str = #name;
    })
}

fn definition(args: &SagaArgs, saga: &Saga, graph: &Graph, index: usize, step: &Step) -> TokenStream {
    let krate = &args.krate;
    let name = step.recorded_name();
    let kind = kind_of(krate, &step.body);
    let after = &graph.after[index];
    let pivot = step.args.pivot.is_some();
    let retry = retry(krate, step.args.retry, if graph.no_way_back[index] && !pivot { "FORWARD" } else { "STEP" });
    let timeout = timeout(krate, step.args.timeout);
    let compensation = match graph.undo[index] {
        None => quote!(::core::option::Option::None),
        Some(undo) => {
            let undo = &saga.compensations[undo];
            let undo_name = undo.body.name().unraw().to_string();
            let undo_kind = kind_of(krate, &undo.body);
            let needs_output = undo.body.params.iter().any(|param| param.name == *step.body.name() && !param.optional);
            let undo_retry = self::retry(krate, undo.args.retry, "COMPENSATION");
            let undo_timeout = self::timeout(krate, undo.args.timeout);
            quote!(::core::option::Option::Some(#krate::Compensation {
                name: #krate::__private::Cow::Borrowed(#undo_name),
                kind: #undo_kind,
                needs_output: #needs_output,
                retry: #undo_retry,
                timeout: #undo_timeout,
            }))
        }
    };
    quote!(#krate::Step {
        name: #krate::__private::Cow::Borrowed(#name),
        kind: #kind,
        after: #krate::__private::Cow::Borrowed(&[#(#after),*]),
        compensation: #compensation,
        pivot: #pivot,
        retry: #retry,
        timeout: #timeout,
    })
}

fn kind_of(krate: &Path, body: &Body) -> TokenStream {
    if is_tx(body) { quote!(#krate::StepKind::Tx) } else { quote!(#krate::StepKind::Call) }
}

fn is_tx(body: &Body) -> bool {
    body.capability.as_ref().is_some_and(|given| given.kind == Kind::Tx)
}

fn retry(krate: &Path, retry: Option<Retry>, default: &str) -> TokenStream {
    let default = format_ident!("{default}");
    let Some(Retry { attempts, backoff }) = retry else { return quote!(#krate::RetryPolicy::#default) };
    let attempts = match attempts {
        Some(Attempts::Most(most)) => quote!(::core::option::Option::Some(#most)),
        Some(Attempts::Forever) => quote!(::core::option::Option::None),
        None => quote!(#krate::RetryPolicy::#default.attempts),
    };
    let (first, longest) = match backoff {
        Some((first, longest)) => (duration(krate, first), duration(krate, longest)),
        None => (quote!(#krate::RetryPolicy::#default.first), quote!(#krate::RetryPolicy::#default.longest)),
    };
    quote!(#krate::RetryPolicy { attempts: #attempts, first: #first, longest: #longest })
}

fn timeout(krate: &Path, timeout: Option<Duration>) -> TokenStream {
    timeout.map_or_else(|| quote!(#krate::Definition::DEFAULT_TIMEOUT), |timeout| duration(krate, timeout))
}

fn duration(krate: &Path, duration: Duration) -> TokenStream {
    let millis = duration.as_millis() as u64;
    quote!(#krate::__private::Duration::from_millis(#millis))
}

/// One arm: reads the recorded data, calls the method, encodes what it returned.
fn arm(args: &SagaArgs, saga: &Saga, step: usize, body: &Body, forward: bool) -> TokenStream {
    let krate = &args.krate;
    let method = body.name();
    let reads = body.params.iter().map(|param| read(args, saga, param));
    let arguments = body.params.iter().map(|param| {
        let local = local(param);
        match (param.optional, param.is_view()) {
            (true, true) => quote_spanned!(at(param.ty.span())=> #local.as_deref()),
            (true, false) => quote!(#local.as_ref()),
            (false, true) => quote_spanned!(at(param.ty.span())=> &#local),
            (false, false) => quote!(&#local),
        }
    });
    let capability = capability(body);
    let returned = match &body.signature.output {
        ReturnType::Default => method.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    // On the type that the method returns, so that another one is reported there.
    let settled = respan(quote!(#krate::__private::settled), returned);
    let settled = quote_spanned! {at(returned)=>
        let __amends_output = #settled(self.#method(__amends_capability #(, #arguments)*).await)?;
    };
    let output = if forward {
        let output = respan(quote!(#krate::__private::output), returned);
        quote_spanned!(at(returned)=> #output(&__amends_output))
    } else {
        quote!({
            let _ = __amends_output;
            ::core::result::Result::Ok(#krate::Json::null())
        })
    };
    let pin = respan(quote!(#krate::__private::Box::pin), method.span());
    // On the method's name, so that a future which is not `Send` is reported there.
    let future = quote_spanned! {at(method.span())=>
        #pin(async move {
            #capability
            #(#reads)*
            #settled
            #output
        })
    };
    quote!(#step => #future,)
}

/// On the parameter's type, so that another one is reported there.
fn capability(body: &Body) -> TokenStream {
    let Some(Capability { ty, kind, .. }) = &body.capability else { return TokenStream::new() };
    match kind {
        Kind::Tx => quote!(let __amends_capability = __amends_capability.tx();),
        Kind::Call => {
            quote_spanned!(at(ty.span())=> let __amends_capability: &#ty = __amends_capability.call();)
        }
    }
}

fn local(param: &Param) -> Ident {
    format_ident!("__amends_{}", param.name, span = at(param.ty.span()))
}

fn read(args: &SagaArgs, saga: &Saga, param: &Param) -> TokenStream {
    let krate = &args.krate;
    let (local, ty) = (local(param), &param.ty);
    let (recorded, read) = if param.name == "input" {
        let input = &args.input;
        (quote!(#input), quote!(input()))
    } else {
        let index = saga.steps.iter().position(|step| *step.body.name() == param.name).unwrap_or_default();
        let read = if param.optional { quote!(maybe_output(#index)) } else { quote!(output(#index)) };
        (output_type(krate, &saga.steps[index].body), read)
    };
    // All on the parameter's type, so that a mismatch is reported there, and only there: what follows reads what the
    // parameter says.
    let (recorded, read) = (respan(recorded, ty.span()), respan(read, ty.span()));
    let (check, read_ty) = if param.is_view() {
        (TokenStream::new(), recorded)
    } else {
        (quote_spanned!(at(ty.span())=> #krate::__private::is_same::<#recorded, #ty>();), quote!(#ty))
    };
    let read_ty = if param.optional { quote!(::core::option::Option<#read_ty>) } else { read_ty };
    quote_spanned!(at(ty.span())=> #check let #local: #read_ty = __amends_data.#read?;)
}

/// Shown there, but with names as the glue means them: a block that comes out of a macro has spans of two worlds.
fn at(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// Names mean what they meant, and are shown there.
fn respan(tokens: TokenStream, span: Span) -> TokenStream {
    let respanned = tokens.into_iter().map(|token| match token {
        TokenTree::Group(group) => {
            let mut group = Group::new(group.delimiter(), respan(group.stream(), span));
            group.set_span(span);
            TokenTree::Group(group)
        }
        mut token => {
            token.set_span(token.span().located_at(span));
            token
        }
    });
    respanned.collect()
}

/// What a step's method returns when it succeeds.
fn output_type(krate: &Path, body: &Body) -> TokenStream {
    match &body.signature.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => quote!(<#ty as #krate::__private::StepOutput>::Output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTRIBUTE: &str = r#"name = "trip", version = 1, input = Order, crate = "amends""#;
    const BLOCK: &str = r#"
        impl<S: Store> Trip<S> {
            const SEATS: u8 = 1;
            #[step(tx, compensate = leave, name = "fly", retry(attempts = 3, backoff = "1s..1m"), timeout = "1m")]
            pub async fn flight(&self, tx: &mut S::Tx, input: &Order) -> StepResult<Seat> { body }
            #[step(call, after = [flight], pivot)]
            async fn hotel(&self, call: &Call, flight: &Seat) -> StepResult<()> { body }
            #[compensate(retry(attempts = forever))]
            async fn leave(&self, call: &Call, flight: Option<&Seat>) -> StepResult<()> { body }
        }"#;

    fn tokens(text: &str) -> TokenStream {
        text.parse().expect("the text has balanced brackets")
    }

    /// Every stream that lacks one token, at any depth, and every one that has one twice.
    fn mistakes(tokens: &TokenStream) -> Vec<TokenStream> {
        let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
        let with = |index: usize, replaced: &[TokenTree]| -> TokenStream {
            tokens[..index].iter().chain(replaced).chain(&tokens[index + 1..]).cloned().collect()
        };
        let mut all = Vec::new();
        for (index, token) in tokens.iter().enumerate() {
            all.push(with(index, &[]));
            all.push(with(index, &[token.clone(), token.clone()]));
            if let TokenTree::Group(group) = token {
                let inner = mistakes(&group.stream()).into_iter();
                all.extend(inner.map(|inner| with(index, &[Group::new(group.delimiter(), inner).into()])));
            }
        }
        all
    }

    /// Checks that the block comes back, and with it either the glue or a message.
    fn check(attribute: TokenStream, block: &TokenStream) {
        let expanded = saga(attribute, block.clone()).to_string();
        let given_back = source::without_markers(block.clone()).to_string();
        assert!(expanded.contains(&given_back), "the block is gone: {expanded}");
        let (glue, errors) = (expanded.contains("fn execute"), expanded.contains("compile_error"));
        assert!(glue != errors, "glue: {glue}, errors: {errors}: {expanded}");
    }

    #[test]
    fn a_slip_of_the_pen_neither_panics_nor_swallows_the_block() {
        check(tokens(ATTRIBUTE), &tokens(BLOCK));
        for block in mistakes(&tokens(BLOCK)) {
            check(tokens(ATTRIBUTE), &block);
        }
        for attribute in mistakes(&tokens(ATTRIBUTE)) {
            check(attribute, &tokens(BLOCK));
        }
    }
}
