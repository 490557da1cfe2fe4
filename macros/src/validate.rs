//! The rules of a saga. Each mistake gives one message, on the token that made it, with the way to mend it.

use std::collections::HashSet;

use proc_macro2::Span;
use syn::Ident;

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
pub(crate) fn validate(saga: &Saga, sink: &mut Sink) -> Option<Graph> {
    if saga.steps.is_empty() && sink.is_empty() {
        sink.at(
            Span::call_site(),
            "a saga has at least one step: a method with `#[step(tx, …)]` or `#[step(call, …)]`",
        );
        return None;
    }
    names(saga, sink);
    let after = edges(saga, sink);
    let ancestors = ancestors(&after);
    let no_way_back = pivots(saga, &ancestors, sink);
    let (undo, undoes) = compensations(saga, &no_way_back, sink);
    for (index, step) in saga.steps.iter().enumerate() {
        capability(&step.body, Some(step.args.kind), sink);
        for param in &step.body.params {
            step_param(saga, index, param, &ancestors[index], sink);
        }
    }
    for (index, compensation) in saga.compensations.iter().enumerate() {
        capability(&compensation.body, None, sink);
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

fn known_steps<'a>(steps: impl Iterator<Item = &'a Step>) -> String {
    let names: Vec<_> = steps.map(|step| format!("`{}`", step.body.name())).collect();
    if names.is_empty() { "there is none".into() } else { names.join(", ") }
}

fn names(saga: &Saga, sink: &mut Sink) {
    let mut seen = HashSet::new();
    for step in &saga.steps {
        let (name, span) = match &step.args.name {
            Some(name) => (name.value(), name.span()),
            None => (step.body.name().to_string(), step.body.name().span()),
        };
        if ["input", "start"].contains(&name.as_str()) && step.args.name.is_none() {
            sink.at(
                span,
                format!("a step cannot be called `{name}`, which means something else in a saga; give it another name"),
            );
        }
        if !seen.insert(name.clone()) {
            sink.at(span, format!("two steps are recorded as `{name}`; give one of them another `name = \"…\"`"));
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
                        "`{name}` is not a step before `{}`; the steps before it are: {}",
                        step.body.name(),
                        known_steps(saga.steps[..index].iter())
                    ),
                ),
            }
        }
        edges.push(before);
    }
    edges
}

/// The steps that surely ran before each step.
fn ancestors(after: &[Vec<usize>]) -> Vec<Vec<bool>> {
    let mut all: Vec<Vec<bool>> = Vec::with_capacity(after.len());
    for before in after {
        let mut mine = vec![false; after.len()];
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

fn compensations(saga: &Saga, no_way_back: &[bool], sink: &mut Sink) -> Undo {
    let mut undo = vec![None; saga.steps.len()];
    let mut undoes = vec![None; saga.compensations.len()];
    let known = || {
        let names: Vec<_> = saga.compensations.iter().map(|undo| format!("`{}`", undo.body.name())).collect();
        if names.is_empty() { "there is none".into() } else { format!("there are: {}", names.join(", ")) }
    };
    let mut named = vec![false; saga.compensations.len()];
    for (index, step) in saga.steps.iter().enumerate() {
        let name = step.body.name();
        match &step.args.compensate {
            None if no_way_back[index] => {}
            None => sink.at(
                name.span(),
                format!("step `{name}` comes before any pivot, so the saga may have to undo it: add `compensate = method`, or `compensate = none` if there is nothing to undo"),
            ),
            Some(Compensate::None) => {}
            Some(Compensate::By(by)) => {
                let found = saga.compensations.iter().position(|undo| undo.body.name() == by);
                if let Some(found) = found {
                    named[found] = true;
                }
                match found {
                    _ if no_way_back[index] => sink.at(by.span(), format!("step `{name}` is at or after the pivot, so it is never undone; drop its compensation")),
                    None => sink.at(by.span(), format!("`{by}` is not a method with `#[compensate]`; {}", known())),
                    Some(found) if undoes[found].is_some() => sink.at(by.span(), format!("`{by}` undoes another step already; write a compensation for each step")),
                    Some(found) => {
                        undo[index] = Some(found);
                        undoes[found] = Some(index);
                    }
                }
            }
        }
    }
    for (compensation, named) in saga.compensations.iter().zip(named) {
        let name = compensation.body.name();
        if !named && sink.is_empty() {
            sink.at(
                name.span(),
                format!("no step names `{name}`: add `compensate = {name}` to the step that it undoes, or drop it"),
            );
        }
    }
    (undo, undoes)
}

fn capability(body: &Body, kind: Option<Kind>, sink: &mut Sink) {
    let name = body.name();
    let span = body.signature.inputs.iter().nth(1).map_or(name.span(), syn::spanned::Spanned::span);
    match (kind, &body.capability) {
        (Some(kind), Some((given, _))) if kind != *given => {
            sink.at(span, format!("a `{}` step receives {} first, after `&self`", kind.key(), kind.capability()));
        }
        (Some(kind), None) => {
            sink.at(span, format!("a `{}` step receives {} first, after `&self`", kind.key(), kind.capability()));
        }
        (None, None) => sink.at(
            span,
            format!(
                "`{name}` receives {} or {} first, after `&self`: that says how it undoes",
                Kind::Tx.capability(),
                Kind::Call.capability()
            ),
        ),
        _ => {}
    }
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
                "`{name}` is neither `input` nor a step before `{step}`; those are: {}",
                known_steps(saga.steps[..index].iter())
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
        let readable = saga.steps.iter().enumerate().filter(|(i, _)| *i == step || ancestors[*i]).map(|(_, step)| step);
        sink.at(
            name.span(),
            format!("a compensation of `{undone}` can receive `input` and: {}", known_steps(readable)),
        );
    }
}
