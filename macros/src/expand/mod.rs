//! Lowers a saga to the public traits `Saga` and `Steps`. The logic is in `amends`, not in these tokens.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Ident, Path};

use crate::args;
use crate::model::{Saga, SagaArgs, Step};
use crate::sink::Sink;
use crate::source;
use crate::validate::{Graph, validate};

mod bodies;
mod definition;
mod types;

#[cfg(test)]
mod tests;

use bodies::Glue;
use types::{at, readers_type, respan, returned_at, whole_type};

/// The block as it was, and either the glue or the mistakes.
pub(crate) fn saga(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut sink = Sink::default();
    let args = args::saga(attribute, &mut sink);
    let saga = source::read(item.clone(), &mut sink);
    let graph = saga.as_ref().and_then(|saga| validate(saga, args.as_ref(), &mut sink));
    let glue = match (args, saga, graph) {
        (Some(args), Some(saga), Some(graph)) => Some(glue(&args, &saga, &graph)),
        _ => None,
    };
    let block = source::without_markers(item);
    let errors = sink.into_tokens();
    // The form of a method is given, whether or not it waits for something, looks at `self`, reads something small or can
    // fail.
    let allowed = quote!(
        clippy::unused_async,
        clippy::unused_self,
        clippy::trivially_copy_pass_by_ref,
        clippy::unnecessary_wraps
    );
    quote!(#[allow(#allowed)] #block #glue #errors)
}

fn glue(args: &SagaArgs, saga: &Saga, graph: &Graph) -> TokenStream {
    let krate = &args.krate;
    let (impl_generics, _, where_clause) = saga.generics.split_for_impl();
    let (self_ty, input) = (&saga.self_ty, &args.input);
    let input = quote_spanned!(at(input.span())=> type Input = #input;);
    let output = output(args, saga);
    let constants = saga.steps.iter().filter_map(|step| constant(krate, saga, step));
    let definition = definition::definition(args, saga, graph);
    let scheduled = args.schedule.as_ref().map(|_| scheduled(args));
    let steps = steps(args, saga, graph);
    quote! {
        // A constant of a step may name a type that is less public than the saga.
        #[allow(dead_code, unreachable_pub, missing_docs, private_interfaces)]
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
            #output

            const DEFINITION: &'static #krate::Definition = #definition;

            #scheduled
        }

        #steps
    }
}

/// What it is started with that starts by itself; on the input's type, so that one that no time makes is reported there.
fn scheduled(args: &SagaArgs) -> TokenStream {
    let (krate, input) = (&args.krate, &args.input);
    let of_tick = quote_spanned!(at(input.span())=> <#input as #krate::__private::OfTick>::of_tick);
    quote! {
        fn scheduled(__amends_tick: #krate::Tick) -> ::core::option::Option<Self::Input> {
            ::core::option::Option::Some(#of_tick(__amends_tick))
        }
    }
}

/// What the last step in the source returns, as its readers see it.
fn output(args: &SagaArgs, saga: &Saga) -> TokenStream {
    let Some(last) = saga.steps.last() else { return TokenStream::new() };
    let span = returned_at(&last.body);
    let ty = readers_type(&args.krate, last, args.since);
    quote_spanned!(span=> type Output = #ty;)
}

/// A step as a constant, such as `CHARGE`, unless the block has one of its own.
fn constant(krate: &Path, saga: &Saga, step: &Step) -> Option<TokenStream> {
    let constant = step.body.name().unraw().to_string().to_uppercase();
    // On the method's name, so that a clash with a constant of the user's is reported there.
    let is_free = |constant: &Ident| constant != "DEFINITION" && !saga.constants.contains(constant);
    let constant = syn::parse_str::<Ident>(&constant).ok().filter(is_free)?;
    let constant = Ident::new(&constant.to_string(), step.body.name().span());
    let name = step.recorded_name();
    let span = returned_at(&step.body);
    let (ty, step_ref) = (whole_type(krate, step), respan(quote!(#krate::StepRef), span));
    Some(quote_spanned! {span=>
        #[doc(hidden)]
        pub const #constant: #step_ref<#ty> = #step_ref::new(#name);
    })
}

fn steps(args: &SagaArgs, saga: &Saga, graph: &Graph) -> TokenStream {
    let (krate, self_ty) = (&args.krate, &saga.self_ty);
    let mut generics = saga.generics.clone();
    let tx_span = saga.tx().map_or_else(Span::call_site, |tx| at(tx.span()));
    let tx = saga.tx().map_or_else(
        || {
            generics.params.push(syn::parse_quote!(__AmendsTx: #krate::StepTransaction));
            quote!(__AmendsTx)
        },
        |tx| quote!(#tx),
    );
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    // On the transaction's type, so that what is no transaction is reported there.
    let steps_of_tx = respan(quote!(#krate::Steps<#tx>), tx_span);
    let glue = Glue { args, saga, graph };
    let (execute, compensate, waits) = (glue.execute(), glue.compensate(), waits(glue));
    quote! {
        // What a compensation returns is not recorded, so a step's output may be nothing.
        #[allow(clippy::let_unit_value, clippy::ignored_unit_patterns, clippy::match_same_arms)]
        impl #impl_generics #steps_of_tx for #self_ty #where_clause {
            fn execute<'__amends>(
                &'__amends self,
                __amends_step: usize,
                __amends_capability: #krate::Capability<'__amends, #tx>,
                __amends_data: #krate::Data,
            ) -> #krate::StepFuture<'__amends> {
                match __amends_step {
                    #(#execute)*
                    _ => ::core::unreachable!("step {} has no body that runs", __amends_step),
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
                    _ => ::core::unreachable!("step {} has no compensation that runs", __amends_step),
                }
            }

            #waits
        }
    }
}

/// The methods that most sagas do without.
fn waits(glue: Glue<'_>) -> TokenStream {
    let krate = &glue.args.krate;
    let method = |arms: Vec<TokenStream>, head: TokenStream, scrutinee: TokenStream, otherwise: TokenStream| {
        (!arms.is_empty()).then(|| quote!(#head { match #scrutinee { #(#arms)* _ => #otherwise } }))
    };
    let begin = method(
        glue.begin(),
        quote!(fn begin(
            &self,
            __amends_step: usize,
            __amends_undo: bool,
            __amends_data: #krate::Data,
        ) -> #krate::StepResult<#krate::Begin>),
        quote!((__amends_step, __amends_undo)),
        quote!(::core::unreachable!("step {} begins nothing", __amends_step)),
    );
    let accept = method(
        glue.accept(),
        quote!(fn accept(&self, __amends_step: usize, __amends_answer: &#krate::Json) -> #krate::StepResult<()>),
        quote!(__amends_step),
        quote!(::core::result::Result::Ok(())),
    );
    let probe = method(
        glue.probe(),
        quote!(fn probe<'__amends>(
            &'__amends self,
            __amends_step: usize,
            __amends_call: &'__amends #krate::Call,
            __amends_data: #krate::Data,
        ) -> #krate::ProbeFuture<'__amends>),
        quote!(__amends_step),
        quote!(::core::unreachable!("step {} has no probe", __amends_step)),
    );
    let upcast = method(
        glue.upcast(),
        quote!(fn upcast(&self, __amends_step: usize, __amends_data: #krate::Data) -> #krate::StepResult<#krate::Json>),
        quote!(__amends_step),
        quote!(::core::unreachable!("step {} has no upcast", __amends_step)),
    );
    quote!(#begin #accept #probe #upcast)
}
