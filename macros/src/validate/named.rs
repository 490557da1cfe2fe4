//! What the steps name: what undoes them, what finds out whether they happened, what makes up their output.

use syn::Ident;

use super::choices;
use crate::model::{Compensate, Helper, Kind, Saga, Step};
use crate::sink::Sink;

/// Which step names which method, both ways.
pub(super) struct Named {
    pub(super) by_step: Vec<Option<usize>>,
    pub(super) by_helper: Vec<Option<usize>>,
}

/// Which compensation undoes each step. `no_way_back` is empty if it is not known.
pub(super) fn compensations(saga: &Saga, no_way_back: &[bool], sink: &mut Sink) -> Named {
    let mut undo = vec![None; saga.steps.len()];
    let mut undoes = vec![None; saga.compensations.len()];
    let mut named = vec![false; saga.compensations.len()];
    for (index, step) in saga.steps.iter().enumerate() {
        let name = step.body.name();
        let is_final = no_way_back.get(index).copied();
        let by = match &step.args.compensate {
            Some(Compensate::By(by)) => by,
            None if is_final == Some(false)
                && matches!(step.args.kind, Some(Kind::Tx | Kind::Call | Kind::Request)) =>
            {
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
    Named { by_step: undo, by_helper: undoes }
}

/// Which probe finds out whether each step happened.
pub(super) fn probes(saga: &Saga, sink: &mut Sink) -> Named {
    named(saga, &saga.probes, "probe", |step| step.args.probe.as_ref(), sink)
}

/// Which upcast makes up the output of each step.
pub(super) fn upcasts(saga: &Saga, sink: &mut Sink) -> Named {
    named(saga, &saga.upcasts, "upcast", |step| step.args.upcast.as_ref(), sink)
}

fn named(
    saga: &Saga,
    helpers: &[Helper],
    key: &str,
    named_by: impl Fn(&Step) -> Option<&Ident>,
    sink: &mut Sink,
) -> Named {
    let mut by_step = vec![None; saga.steps.len()];
    let mut by_helper = vec![None; helpers.len()];
    let mut all_found = true;
    for (index, step) in saga.steps.iter().enumerate() {
        all_found &= step.args.sound;
        let Some(by) = named_by(step) else { continue };
        match helpers.iter().position(|helper| helper.body.name() == by) {
            None => {
                all_found = false;
                let known = choices(&format!("{key}s"), helpers.iter().map(|helper| helper.body.name()));
                sink.at(by.span(), format!("`{by}` is not a method with `#[{key}]`; {known}"));
            }
            Some(found) if by_helper[found].is_some() => {
                sink.at(by.span(), format!("`{by}` is the {key} of another step already; write one for each step"));
            }
            Some(found) => {
                by_step[index] = Some(found);
                by_helper[found] = Some(index);
            }
        }
    }
    for (helper, step) in helpers.iter().zip(&by_helper) {
        let name = helper.body.name();
        if step.is_none() && all_found {
            sink.at(
                name.span(),
                format!("no step names `{name}`: add `{key} = {name}` to the step it is for, or drop it"),
            );
        }
    }
    Named { by_step, by_helper }
}
