//! Lowers a saga to the public traits `Saga` and `Steps`. The logic is in `amends`, not in these tokens.

use std::time::Duration;

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Path, ReturnType, Type};

use crate::model::{Attempts, Body, Kind, Param, Retry, Saga, Step};
use crate::sink::Sink;
use crate::source;
use crate::validate::{Graph, validate};

/// The block as it was, and either the glue or the mistakes.
pub(crate) fn saga(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut sink = Sink::default();
    let saga = source::read(attribute, item.clone(), &mut sink);
    let graph = saga.as_ref().and_then(|saga| validate(saga, &mut sink));
    let glue = match (saga, graph) {
        (Some(saga), Some(graph)) if sink.is_empty() => {
            let tx = transaction(&saga, &mut sink);
            sink.is_empty().then(|| glue(&saga, &graph, tx))
        }
        _ => None,
    };
    let block = source::without_markers(item);
    let errors = sink.into_tokens();
    // A step is async whether or not it has something to wait for.
    quote!(#[allow(clippy::unused_async)] #block #glue #errors)
}

/// The transaction type of the tx bodies: all of them the same, or none.
fn transaction(saga: &Saga, sink: &mut Sink) -> Option<Type> {
    let bodies = saga.steps.iter().map(|step| &step.body).chain(saga.compensations.iter().map(|undo| &undo.body));
    let mut tx: Option<Type> = None;
    for (kind, ty) in bodies.filter_map(|body| body.capability.as_ref()) {
        if *kind != Kind::Tx {
            continue;
        }
        match &tx {
            Some(first) if quote!(#first).to_string() != quote!(#ty).to_string() => {
                sink.at(
                    ty.span(),
                    format!(
                        "all tx bodies of a saga use one transaction type, and another one uses `{}`",
                        quote!(#first)
                    ),
                );
                return None;
            }
            Some(_) => {}
            None => tx = Some(ty.clone()),
        }
    }
    tx
}

fn glue(saga: &Saga, graph: &Graph, tx: Option<Type>) -> TokenStream {
    let krate = &saga.args.krate;
    let (impl_generics, _, where_clause) = saga.generics.split_for_impl();
    let (self_ty, input) = (&saga.self_ty, &saga.args.input);
    let (name, version) = (&saga.args.name, saga.args.version);
    let steps = saga.steps.iter().enumerate().map(|(index, step)| definition(saga, graph, index, step));

    let mut steps_generics = saga.generics.clone();
    let tx = tx.map_or_else(
        || {
            let any: Path = syn::parse_quote!(__AmendsTx);
            steps_generics.params.push(syn::parse_quote!(__AmendsTx: #krate::StepTransaction));
            quote!(#any)
        },
        |tx| quote!(#tx),
    );
    let (steps_impl, ..) = steps_generics.split_for_impl();
    let execute = saga.steps.iter().enumerate().map(|(index, step)| arm(saga, index, &step.body, true));
    let compensate =
        saga.compensations.iter().zip(&graph.undoes).map(|(undo, &step)| arm(saga, step, &undo.body, false));

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
        }

        impl #impl_generics #krate::Saga for #self_ty #where_clause {
            type Input = #input;

            const DEFINITION: &'static #krate::Definition = {
                const STEPS: &[#krate::Step] = &[#(#steps),*];
                &#krate::Definition {
                    name: #krate::__private::Cow::Borrowed(#name),
                    version: #version,
                    steps: #krate::__private::Cow::Borrowed(STEPS),
                }
            };
        }

        impl #steps_impl #krate::Steps<#tx> for #self_ty #where_clause {
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

fn definition(saga: &Saga, graph: &Graph, index: usize, step: &Step) -> TokenStream {
    let krate = &saga.args.krate;
    let name = step.args.name.as_ref().map_or_else(|| step.body.name().to_string(), syn::LitStr::value);
    let kind = kind(krate, step.args.kind);
    let after = &graph.after[index];
    let pivot = step.args.pivot.is_some();
    let retry = retry(krate, step.args.retry, if graph.no_way_back[index] && !pivot { "FORWARD" } else { "STEP" });
    let timeout = timeout(krate, step.args.timeout);
    let compensation = match graph.undo[index] {
        None => quote!(::core::option::Option::None),
        Some(undo) => {
            let undo = &saga.compensations[undo];
            let undo_name = undo.body.name().to_string();
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

fn kind(krate: &Path, kind: Kind) -> TokenStream {
    match kind {
        Kind::Tx => quote!(#krate::StepKind::Tx),
        Kind::Call => quote!(#krate::StepKind::Call),
    }
}

fn kind_of(krate: &Path, body: &Body) -> TokenStream {
    kind(krate, body.capability.as_ref().map_or(Kind::Call, |(kind, _)| *kind))
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
fn arm(saga: &Saga, step: usize, body: &Body, forward: bool) -> TokenStream {
    let krate = &saga.args.krate;
    let method = body.name();
    let reads = body.params.iter().map(|param| read(saga, param));
    let arguments = body.params.iter().map(|param| {
        let local = local(param);
        if param.optional { quote!(#local.as_ref()) } else { quote!(&#local) }
    });
    let is_tx = matches!(body.capability, Some((Kind::Tx, _)));
    let capability = if is_tx { quote!(__amends_capability.tx()) } else { quote!(__amends_capability.call()) };
    // On the method's name, so that a future which is not `Send` is reported there.
    let call = quote_spanned!(method.span()=> self.#method(__amends_capability #(, #arguments)*).await?);
    let output = if forward {
        quote!(#krate::__private::output(&#call))
    } else {
        quote!({ let () = #call; ::core::result::Result::Ok(#krate::Json::null()) })
    };
    quote! {
        #step => #krate::__private::Box::pin(async move {
            let __amends_capability = #capability;
            #(#reads)*
            #output
        }),
    }
}

fn local(param: &Param) -> syn::Ident {
    format_ident!("__amends_{}", param.name, span = Span::call_site())
}

fn read(saga: &Saga, param: &Param) -> TokenStream {
    let krate = &saga.args.krate;
    let (local, ty) = (local(param), &param.ty);
    let (recorded, read) = if param.name == "input" {
        let input = &saga.args.input;
        (quote!(#input), quote!(input()))
    } else {
        let index = saga.steps.iter().position(|step| *step.body.name() == param.name).unwrap_or_default();
        let read = if param.optional { quote!(maybe_output(#index)) } else { quote!(output(#index)) };
        (output_type(krate, &saga.steps[index].body), read)
    };
    // All on the parameter's type, so that a mismatch is reported there, and only there: what follows reads what the
    // parameter says.
    let recorded = respan(recorded, ty.span());
    let check = quote_spanned!(ty.span()=> #krate::__private::is_same::<#recorded, #ty>(););
    let local_ty = if param.optional { quote!(::core::option::Option<#ty>) } else { quote!(#ty) };
    quote! { #check let #local: #local_ty = __amends_data.#read?; }
}

fn respan(tokens: TokenStream, span: Span) -> TokenStream {
    let respanned = tokens.into_iter().map(|token| match token {
        TokenTree::Group(group) => {
            let mut group = Group::new(group.delimiter(), respan(group.stream(), span));
            group.set_span(span);
            TokenTree::Group(group)
        }
        mut token => {
            token.set_span(span);
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
