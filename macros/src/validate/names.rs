//! Names and types that a block has once.

use std::collections::HashSet;

use quote::ToTokens;
use syn::{Error, Ident};

use crate::model::{Kind, Saga};
use crate::sink::Sink;

pub(super) fn names(saga: &Saga, sink: &mut Sink) {
    let taken = |name: &Ident, words: &[&str]| words.iter().any(|word| name == word);
    let mut seen = HashSet::new();
    for step in &saga.steps {
        let method = step.body.name();
        if taken(method, &["input", "item", "start", "key", "unkeyed"]) {
            sink.at(
                method.span(),
                format!("a step cannot be called `{method}`, which means something else in a saga; rename the method"),
            );
        }
        let name = step.recorded_name();
        let span = step.args.name.as_ref().map_or(method.span(), syn::LitStr::span);
        if !seen.insert(name.clone()) {
            sink.at(span, format!("two steps are recorded as `{name}`; give one of them another `name = \"…\"`"));
        }
    }
    let compensations = saga.compensations.iter().map(|it| (it, "compensation"));
    let probes = saga.probes.iter().map(|it| (it, "probe"));
    let upcasts = saga.upcasts.iter().map(|it| (it, "upcast"));
    for (helper, what) in compensations.chain(probes).chain(upcasts) {
        let method = helper.body.name();
        if taken(method, &["none", "key", "unkeyed"]) {
            sink.at(
                method.span(),
                format!(
                    "a {what} cannot be called `{method}`, which means something else in a saga; rename the method"
                ),
            );
        }
    }
}

/// All tx bodies use the same transaction type.
pub(super) fn transaction(saga: &Saga, sink: &mut Sink) {
    let Some(first) = saga.tx() else { return };
    let first = first.to_token_stream().to_string();
    for given in saga.bodies().filter_map(|body| body.capability.as_ref()) {
        if given.kind == Kind::Tx && given.ty.to_token_stream().to_string() != first {
            sink.push(Error::new_spanned(
                &given.ty,
                format!("all tx bodies of a saga use one transaction type, and another one uses `{first}`"),
            ));
            return;
        }
    }
}
