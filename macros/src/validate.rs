//! The rules of a saga. Each mistake gives one message, on the token that made it, with the way to mend it.

use std::collections::HashSet;

use proc_macro2::Span;
use quote::ToTokens;
use syn::{Error, FnArg, Ident};

use crate::model::{Body, Compensate, Kind, Param, Saga, Step};
use crate::sink::Sink;

/// What the rules found out about a saga, by index of its steps and compensations.
pub(crate) struct Graph {
    /// The direct predecessors of each step.
    pub(crate) after: Vec<Vec<usize>>,
    /// At or behind a pivot.
    pub(crate) no_way_back: Vec<bool>,
    /// Which compensation undoes each step.
    pub(crate) undo: Vec<Option<usize>>,
    /// Which step each compensation undoes.
    pub(crate) undoes: Vec<usize>,
}

/// The graph, or `None` if a rule is broken.
///
/// What was mistaken before is passed over in silence: a mistake gives one message.
pub(crate) fn validate(saga: &Saga, sink: &mut Sink) -> Option<Graph> {
    if saga.steps.is_empty() && sink.is_empty() {
        sink.at(
            Span::call_site(),
            "a saga has at least one step: a method with `#[step(tx, …)]` or `#[step(call, …)]`",
        );
        return None;
    }
    let sound = saga.steps.iter().all(|step| step.args.sound);
    names(saga, sink);
    transaction(saga, sink);
    let after = edges(saga, sink);
    let ancestors = ancestors(saga, &after);
    let no_way_back = if sound { pivots(saga, &ancestors, sink) } else { Vec::new() };
    let (undo, undoes) = compensations(saga, &no_way_back, sink);
    for (index, step) in saga.steps.iter().enumerate() {
        capability(saga, &step.body, step.args.kind, step.args.sound, sink);
        for param in &step.body.params {
            step_param(saga, index, param, &ancestors[index], sink);
        }
    }
    for (index, compensation) in saga.compensations.iter().enumerate() {
        capability(saga, &compensation.body, None, true, sink);
        let Some(step) = undoes[index] else { continue };
        for param in &compensation.body.params {
            undo_param(saga, step, param, &ancestors[step], sink);
        }
    }
    let undoes = undoes.into_iter().collect::<Option<Vec<_>>>();
    if sink.is_empty() { undoes.map(|undoes| Graph { after, no_way_back, undo, undoes }) } else { None }
}

fn find(saga: &Saga, name: &Ident) -> Option<usize> {
    saga.steps.iter().position(|step| step.body.name() == name)
}

/// Ends a message with the names that would have been right.
fn choices<'a>(what: &str, names: impl Iterator<Item = &'a Ident>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { format!("there are no {what}") } else { format!("the {what} are: {}", names.join(", ")) }
}

fn step_names(steps: &[Step]) -> impl Iterator<Item = &Ident> {
    steps.iter().map(|step| step.body.name())
}

fn names(saga: &Saga, sink: &mut Sink) {
    let taken = |name: &Ident, words: &[&str]| words.iter().any(|word| name == word);
    let mut seen = HashSet::new();
    for step in &saga.steps {
        let method = step.body.name();
        if taken(method, &["input", "start", "key", "unkeyed"]) {
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
    for compensation in &saga.compensations {
        let method = compensation.body.name();
        if taken(method, &["none", "key", "unkeyed"]) {
            sink.at(
                method.span(),
                format!(
                    "a compensation cannot be called `{method}`, which means something else in a saga; rename the method"
                ),
            );
        }
    }
}

/// All tx bodies use the same transaction type.
fn transaction(saga: &Saga, sink: &mut Sink) {
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

fn edges(saga: &Saga, sink: &mut Sink) -> Vec<Vec<usize>> {
    let mut edges = Vec::with_capacity(saga.steps.len());
    for (index, step) in saga.steps.iter().enumerate() {
        let Some(after) = &step.args.after else {
            edges.push(if index == 0 { Vec::new() } else { vec![index - 1] });
            continue;
        };
        let mut before = Vec::new();
        for name in after {
            match find(saga, name) {
                Some(earlier) if earlier < index && before.contains(&earlier) => {
                    sink.at(name.span(), format!("`{name}` is named twice; once is enough"));
                }
                Some(earlier) if earlier < index => before.push(earlier),
                _ => sink.at(
                    name.span(),
                    format!(
                        "`{name}` is not a step before `{}`; {}",
                        step.body.name(),
                        choices("steps before it", step_names(&saga.steps[..index]))
                    ),
                ),
            }
        }
        edges.push(before);
    }
    edges
}

/// The steps that surely ran before each step. Where the place of a step was mistaken, all that stand before it.
fn ancestors(saga: &Saga, after: &[Vec<usize>]) -> Vec<Vec<bool>> {
    let mut all: Vec<Vec<bool>> = Vec::with_capacity(after.len());
    for (index, before) in after.iter().enumerate() {
        let mistaken = !saga.steps[index].args.sound
            || saga.steps[index].args.after.as_ref().is_some_and(|named| named.len() != before.len());
        let mut mine: Vec<_> = (0..after.len()).map(|earlier| mistaken && earlier < index).collect();
        for &step in before {
            mine[step] = true;
            for (known, theirs) in mine.iter_mut().zip(&all[step]) {
                *known |= theirs;
            }
        }
        all.push(mine);
    }
    all
}

fn pivots(saga: &Saga, ancestors: &[Vec<bool>], sink: &mut Sink) -> Vec<bool> {
    let is_pivot = |step: usize| saga.steps[step].args.pivot.is_some();
    let behind = |step: usize| (0..saga.steps.len()).find(|&other| ancestors[step][other] && is_pivot(other));
    let mut no_way_back = Vec::with_capacity(saga.steps.len());
    for (index, step) in saga.steps.iter().enumerate() {
        if let (Some(span), Some(first)) = (step.args.pivot, behind(index)) {
            let first = saga.steps[first].body.name();
            sink.at(
                span,
                format!(
                    "a path has one pivot, and `{first}` comes before `{}`; what comes after a pivot is retried anyway",
                    step.body.name()
                ),
            );
        }
        no_way_back.push(is_pivot(index) || behind(index).is_some());
    }
    no_way_back
}

type Undo = (Vec<Option<usize>>, Vec<Option<usize>>);

/// Which compensation undoes each step, and the other way round. `no_way_back` is empty if it is not known.
fn compensations(saga: &Saga, no_way_back: &[bool], sink: &mut Sink) -> Undo {
    let mut undo = vec![None; saga.steps.len()];
    let mut undoes = vec![None; saga.compensations.len()];
    let mut named = vec![false; saga.compensations.len()];
    for (index, step) in saga.steps.iter().enumerate() {
        let name = step.body.name();
        let is_final = no_way_back.get(index).copied();
        let by = match &step.args.compensate {
            Some(Compensate::By(by)) => by,
            None if is_final == Some(false) => {
                sink.at(name.span(), format!("step `{name}` comes before any pivot, so the saga may have to undo it: add `compensate = method`, or `compensate = none` if there is nothing to undo"));
                continue;
            }
            Some(Compensate::None) | None => continue,
        };
        let found = saga.compensations.iter().position(|undo| undo.body.name() == by);
        if let Some(found) = found {
            named[found] = true;
        }
        match found {
            _ if is_final == Some(true) => sink.at(
                by.span(),
                format!("step `{name}` is at or after the pivot, so it is never undone; drop its compensation"),
            ),
            None => {
                let known = choices("compensations", saga.compensations.iter().map(|undo| undo.body.name()));
                sink.at(by.span(), format!("`{by}` is not a method with `#[compensate]`; {known}"));
            }
            Some(found) if undoes[found].is_some() => {
                sink.at(by.span(), format!("`{by}` undoes another step already; write a compensation for each step"));
            }
            Some(found) => {
                undo[index] = Some(found);
                undoes[found] = Some(index);
            }
        }
    }
    // What is named wrongly leaves its compensation without a name.
    let all_found = saga.steps.iter().zip(&undo).all(|(step, undo)| match step.args.compensate {
        Some(Compensate::By(_)) => undo.is_some(),
        _ => step.args.sound,
    });
    for (compensation, named) in saga.compensations.iter().zip(named) {
        let name = compensation.body.name();
        if !named && all_found {
            sink.at(
                name.span(),
                format!("no step names `{name}`: add `compensate = {name}` to the step that it undoes, or drop it"),
            );
        }
    }
    (undo, undoes)
}

/// The first parameter fits the kind of the step; of a compensation (`kind` is `None`) it decides the kind.
fn capability(saga: &Saga, body: &Body, kind: Option<Kind>, sound: bool, sink: &mut Sink) {
    if !body.sound || !sound {
        return;
    }
    let name = body.name();
    let fits = body.capability.as_ref().is_some_and(|given| {
        let is_data = |name: &Ident| name == "input" || find(saga, name).is_some();
        kind.is_none_or(|kind| kind == given.kind) && !given.name.as_ref().is_some_and(is_data)
    });
    if fits {
        return;
    }
    let message = match kind {
        Some(kind) => format!("a `{}` step receives {} first, after `&self`", kind.key(), kind.capability()),
        None => format!(
            "`{name}` receives {} or {} first, after `&self`: that says how it undoes",
            Kind::Tx.capability(),
            Kind::Call.capability()
        ),
    };
    sink.push(match body.signature.inputs.get(1) {
        Some(FnArg::Typed(given)) => Error::new_spanned(&given.ty, message),
        _ => Error::new(name.span(), message),
    });
}

fn step_param(saga: &Saga, index: usize, param: &Param, ancestors: &[bool], sink: &mut Sink) {
    let (name, step) = (&param.name, saga.steps[index].body.name());
    if param.optional {
        sink.at(name.span(), format!("a step receives what surely ran before it, so `{name}` is a plain reference"));
        return;
    }
    if name == "input" {
        return;
    }
    match find(saga, name) {
        Some(earlier) if ancestors[earlier] => {}
        Some(earlier) if earlier < index => {
            sink.at(
                name.span(),
                format!(
                    "`{name}` may not have run when `{step}` does; add `after = {name}` (or `after = [..]`) to `{step}`"
                ),
            );
        }
        _ => sink.at(
            name.span(),
            format!(
                "`{name}` is neither `input` nor a step before `{step}`; {}",
                choices("steps before it", step_names(&saga.steps[..index]))
            ),
        ),
    }
}

fn undo_param(saga: &Saga, step: usize, param: &Param, ancestors: &[bool], sink: &mut Sink) {
    let (name, undone) = (&param.name, saga.steps[step].body.name());
    let found = find(saga, name);
    let is_own = found == Some(step);
    if param.optional && !is_own {
        sink.at(
            name.span(),
            format!("only the outcome of `{undone}` itself can be unknown here; receive `{name}` by plain reference"),
        );
    } else if name != "input" && !is_own && !found.is_some_and(|found| ancestors[found]) {
        let readable = step_names(&saga.steps).enumerate().filter(|(i, _)| *i == step || ancestors[*i]);
        sink.at(
            name.span(),
            format!(
                "`{name}` is neither `input`, nor `{undone}`, nor a step that surely ran before it; {}",
                choices("steps that the compensation can receive", readable.map(|(_, name)| name))
            ),
        );
    }
}
