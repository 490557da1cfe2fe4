//! The graph as a constant.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::Path;
use syn::ext::IdentExt;

use super::types::{reads, returned, returned_at};
use crate::model::{Attempts, Compensate, HelperArgs, Kind, Retry, Saga, SagaArgs, Schedule, Step};
use crate::validate::Graph;

const DEFAULT_CONCURRENCY: u32 = 8;

pub(super) fn definition(args: &SagaArgs, saga: &Saga, graph: &Graph) -> TokenStream {
    let krate = &args.krate;
    let SagaArgs { name, version, since, .. } = args;
    let deadline = option(args.deadline.map(|deadline| duration(krate, deadline)));
    let concurrency = option(args.concurrency.map(|most| quote!(#most)));
    let schedule = option(args.schedule.as_ref().map(|it| schedule(krate, it)));
    let steps = saga.steps.iter().enumerate().map(|(index, it)| step(krate, saga, graph, index, it));
    // Not in a constant of their own, which could not name the type parameters of the block.
    quote!(&#krate::__private::definition(#name, #version, #since, #deadline, #concurrency, #schedule, &[#(#steps),*]))
}

fn schedule(krate: &Path, schedule: &Schedule) -> TokenStream {
    match schedule {
        Schedule::Every(every) => {
            let every = duration(krate, *every);
            quote!(#krate::__private::Scheduled::Every(#every))
        }
        Schedule::Cron(line) => quote!(#krate::__private::Scheduled::Cron(#line)),
    }
}

fn step(krate: &Path, saga: &Saga, graph: &Graph, index: usize, step: &Step) -> TokenStream {
    let (it, name) = (&step.args, step.recorded_name());
    // Validation has seen that there is one.
    let kind = it.kind.unwrap_or(Kind::Tx);
    let kind_name = variant(kind);
    let after = &graph.after[index];
    let compensation = option(compensation(krate, saga, graph, index, step));
    let probe = option(graph.probe[index].map(|probe| self::probe(krate, &saga.probes[probe])));
    let (pivot, skippable, savepoint) = (it.pivot.is_some(), it.skippable.is_some(), it.savepoint.is_some());
    let goes_forward = graph.no_way_back[index] && !pivot;
    let retry = retry(
        krate,
        it.retry,
        match kind {
            Kind::Signal => "ONCE",
            _ if goes_forward => "FORWARD",
            Kind::Request | Kind::Child => "ONCE",
            Kind::Tx | Kind::Call => "STEP",
        },
    );
    let timeout = timeout(krate, it.timeout, kind);
    let delay = it.delay.map_or_else(|| quote!(#krate::__private::Duration::ZERO), |delay| duration(krate, delay));
    let reads = reads(krate, saga, &step.body);
    let for_each = option(for_each(krate, saga, step));
    let alternate = option(graph.alternate[index].map(|end| quote!(#end)));
    let child = option(child(krate, step));
    let (refuses_early, upcast) = (it.early.is_some(), it.upcast.is_some());
    let since = it.since.map_or(0, |(since, _)| since);
    quote!(#krate::Step {
        name: #krate::__private::Cow::Borrowed(#name),
        kind: #krate::StepKind::#kind_name,
        after: #krate::__private::Cow::Borrowed(&[#(#after),*]),
        compensation: #compensation,
        probe: #probe,
        pivot: #pivot,
        retry: #retry,
        timeout: #timeout,
        delay: #delay,
        reads: #reads,
        skippable: #skippable,
        for_each: #for_each,
        alternate: #alternate,
        savepoint: #savepoint,
        child: #child,
        refuses_early: #refuses_early,
        since: #since,
        upcast: #upcast,
    })
}

fn compensation(krate: &Path, saga: &Saga, graph: &Graph, index: usize, step: &Step) -> Option<TokenStream> {
    let is_child = step.args.kind == Some(Kind::Child);
    let (name, kind, needs_output, reads, args) = match graph.undo[index] {
        Some(undo) => {
            let undo = &saga.compensations[undo];
            let needs_output = undo.body.params.iter().any(|param| param.name == *step.body.name() && !param.optional);
            let name = undo.body.name().unraw().to_string();
            (name, undo.body.undo_kind(), needs_output, reads(krate, saga, &undo.body), &undo.args)
        }
        // The child itself is undone.
        None if is_child && !graph.no_way_back[index] && !matches!(step.args.compensate, Some(Compensate::None)) => {
            let reads = quote!(#krate::__private::Cow::Borrowed(&[]));
            ("child".to_owned(), Kind::Child, false, reads, &HelperArgs { retry: None, timeout: None })
        }
        None => return None,
    };
    let kind_name = variant(kind);
    let (retry, timeout) = (retry(krate, args.retry, "COMPENSATION"), timeout(krate, args.timeout, kind));
    Some(quote!(#krate::Compensation {
        name: #krate::__private::Cow::Borrowed(#name),
        kind: #krate::StepKind::#kind_name,
        needs_output: #needs_output,
        reads: #reads,
        retry: #retry,
        timeout: #timeout,
    }))
}

fn probe(krate: &Path, probe: &crate::model::Helper) -> TokenStream {
    let name = probe.body.name().unraw().to_string();
    let retry = retry(krate, probe.args.retry, "COMPENSATION");
    let timeout = timeout(krate, probe.args.timeout, Kind::Call);
    quote!(#krate::Probe { name: #krate::__private::Cow::Borrowed(#name), retry: #retry, timeout: #timeout })
}

fn for_each(krate: &Path, saga: &Saga, step: &Step) -> Option<TokenStream> {
    let over = step.args.for_each.as_ref()?;
    let root = saga.find(&over.root);
    let mut path = root.map_or_else(|| over.root.to_string(), |root| saga.steps[root].recorded_name());
    for field in &over.fields {
        path = format!("{path}.{}", field.unraw());
    }
    let concurrency = step.args.concurrency.map_or(DEFAULT_CONCURRENCY, |(concurrency, _)| concurrency);
    Some(quote!(#krate::ForEach { over: #krate::__private::Cow::Borrowed(#path), concurrency: #concurrency }))
}

/// The name of the saga that it starts.
fn child(krate: &Path, step: &Step) -> Option<TokenStream> {
    if step.args.kind != Some(Kind::Child) {
        return None;
    }
    let (child, span) = (returned(krate, &step.body, Kind::Child), returned_at(&step.body));
    let name = quote_spanned!(span=> #child::NAME);
    Some(quote!(#krate::__private::Cow::Borrowed(#name)))
}

fn variant(kind: Kind) -> syn::Ident {
    match kind {
        Kind::Tx => format_ident!("Tx"),
        Kind::Call => format_ident!("Call"),
        Kind::Request => format_ident!("Request"),
        Kind::Signal => format_ident!("Signal"),
        Kind::Child => format_ident!("Child"),
    }
}

fn option(value: Option<TokenStream>) -> TokenStream {
    value.map_or_else(|| quote!(::core::option::Option::None), |value| quote!(::core::option::Option::Some(#value)))
}

fn retry(krate: &Path, retry: Option<Retry>, default: &str) -> TokenStream {
    let default = format_ident!("{default}");
    let Some(Retry { attempts, backoff, jitter, budget }) = retry else { return quote!(#krate::RetryPolicy::#default) };
    let attempts = attempts.map(|attempts| match attempts {
        Attempts::Most(most) => quote!(attempts: ::core::option::Option::Some(#most),),
        Attempts::Forever => quote!(attempts: ::core::option::Option::None,),
    });
    let backoff = backoff.map(|(first, longest)| {
        let (first, longest) = (duration(krate, first), duration(krate, longest));
        quote!(first: #first, longest: #longest,)
    });
    let jitter = jitter.map(|jitter| quote!(jitter: #jitter,));
    let budget = budget.map(|budget| {
        let budget = duration(krate, budget);
        quote!(budget: ::core::option::Option::Some(#budget),)
    });
    quote!(#krate::RetryPolicy { #attempts #backoff #jitter #budget ..#krate::RetryPolicy::#default })
}

fn timeout(krate: &Path, timeout: Option<Duration>, kind: Kind) -> TokenStream {
    match (timeout, kind) {
        (Some(timeout), _) => duration(krate, timeout),
        (None, Kind::Tx | Kind::Call) => quote!(#krate::Definition::DEFAULT_TIMEOUT),
        (None, Kind::Request) => quote!(#krate::Definition::DEFAULT_REPLY_TIMEOUT),
        (None, Kind::Signal | Kind::Child) => quote!(#krate::__private::Duration::MAX),
    }
}

fn duration(krate: &Path, duration: Duration) -> TokenStream {
    let millis = duration.as_millis() as u64;
    quote!(#krate::__private::Duration::from_millis(#millis))
}
