//! Which keys go with which kinds, and with each other.

use proc_macro2::Span;

use super::{choices, step_names};
use crate::model::{Kind, Saga, SagaArgs, Source, Step};
use crate::sink::Sink;

/// Of steps in whose arguments nothing is mistaken.
pub(super) fn options(saga: &Saga, args: Option<&SagaArgs>, sink: &mut Sink) {
    for step in saga.steps.iter().filter(|step| step.args.sound) {
        if let Some(kind) = step.args.kind {
            by_kind(step, kind, sink);
        }
        let it = &step.args;
        if let (Some((_, span)), None) = (it.concurrency, &it.for_each) {
            sink.at(
                span,
                "`concurrency` is how many items are under way at once; add `for_each = input.…`, or drop it",
            );
        }
        if let (Some(by), None) = (&it.upcast, it.since) {
            sink.at(
                by.span(),
                format!(
                    "`{by}` is for sagas that are older than the step; add `since = 2`, the version that brought it"
                ),
            );
        }
        if let (Some((since, span)), Some(args)) = (it.since, args)
            && since > args.version
        {
            sink.at(
                span,
                format!("the saga has version {}, so version {since} cannot have brought this step", args.version),
            );
        }
    }
}

fn by_kind(step: &Step, kind: Kind, sink: &mut Sink) {
    let (it, key) = (&step.args, kind.key());
    if let (Some(span), true) = (it.early, kind != Kind::Signal) {
        sink.at(span, format!("only a `signal` step can refuse what comes early, and this is a `{key}` step; drop it"));
    }
    if let (Some(probe), false) = (&it.probe, matches!(kind, Kind::Call | Kind::Request)) {
        sink.at(
            probe.span(),
            format!("the outcome of a `{key}` step is known without a probe; only `call` and `request` steps have one"),
        );
    }
    if let (Some(over), Kind::Signal) = (&it.for_each, kind) {
        sink.at(over.root.span(), "a `signal` step waits for one signal, not for one an item; drop `for_each`");
    }
}

/// The list of a `for_each` step is there when the step runs.
pub(super) fn lists(saga: &Saga, before: &[Vec<bool>], args: Option<&SagaArgs>, sink: &mut Sink) {
    for (index, step) in saga.steps.iter().enumerate() {
        let Some(over) = &step.args.for_each else { continue };
        let (root, name) = (&over.root, step.body.name());
        let mut at = |message: String| sink.at(root.span(), message);
        match saga.source(root) {
            Some(Source::Input) => {}
            Some(Source::Step(earlier)) if before[index][earlier] => {
                let lacks = |args: &SagaArgs| saga.steps[earlier].may_lack_output(args.since);
                if saga.steps[earlier].args.sound && args.is_some_and(lacks) {
                    at(format!("there may be no `{root}`, and so no list; let a step between them make one"));
                }
            }
            Some(Source::Step(earlier)) if earlier < index => {
                at(format!(
                    "`{root}` may not have run when `{name}` does; add `after = {root}` (or `after = [..]`) to `{name}`"
                ));
            }
            _ => {
                let known = choices("steps before it", step_names(&saga.steps[..index]));
                at(format!("`{root}` is neither `input` nor a step before `{name}`; {known}"));
            }
        }
    }
}

/// A savepoint, and what has an alternate, can be undone.
pub(super) fn undoable(saga: &Saga, no_way_back: &[bool], sink: &mut Sink) {
    for (step, _) in saga.steps.iter().zip(no_way_back).filter(|(_, is_final)| **is_final) {
        let mut at = |span: Span, what: &str| {
            let name = step.body.name();
            sink.at(
                span,
                format!("step `{name}` is at or after the pivot, so nothing goes back to it; drop its {what}"),
            );
        };
        if let Some(span) = step.args.savepoint {
            at(span, "savepoint");
        }
        if let Some(alternate) = &step.args.alternate {
            at(alternate.span(), "alternate");
        }
    }
}
