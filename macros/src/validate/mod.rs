//! The rules of a saga. Each mistake gives one message, on the token that made it, with the way to mend it.

use proc_macro2::Span;
use syn::Ident;

use crate::model::{Helper, Kind, Saga, SagaArgs, Step};
use crate::sink::Sink;

mod alternates;
mod edges;
mod named;
mod names;
mod options;
mod params;

use params::{Role, Scope, capability};

/// What the rules found out about a saga, by index of its steps.
pub(crate) struct Graph {
    /// The direct predecessors of each step.
    pub(crate) after: Vec<Vec<usize>>,
    /// At or behind a pivot.
    pub(crate) no_way_back: Vec<bool>,
    /// Which compensation undoes each step.
    pub(crate) undo: Vec<Option<usize>>,
    /// Which probe finds out whether each step happened.
    pub(crate) probe: Vec<Option<usize>>,
    /// Which upcast makes up the output of each step.
    pub(crate) upcast: Vec<Option<usize>>,
    /// Which step ends the path that is taken if the one that ends in this step fails.
    pub(crate) alternate: Vec<Option<usize>>,
}

/// The graph, or `None` if a rule is broken.
///
/// What was mistaken before is passed over in silence: a mistake gives one message.
pub(crate) fn validate(saga: &Saga, args: Option<&SagaArgs>, sink: &mut Sink) -> Option<Graph> {
    if saga.steps.is_empty() && sink.is_empty() {
        sink.at(
            Span::call_site(),
            "a saga has at least one step: a method with `#[step(tx, …)]` or `#[step(call, …)]`",
        );
        return None;
    }
    let sound = saga.steps.iter().all(|step| step.args.sound);
    names::names(saga, sink);
    names::transaction(saga, sink);
    let after = edges::edges(saga, sink);
    let ancestors = edges::ancestors(saga, &after);
    let no_way_back = if sound { edges::pivots(saga, &ancestors, sink) } else { Vec::new() };
    let undo = named::compensations(saga, &no_way_back, sink);
    let probe = named::probes(saga, sink);
    let upcast = named::upcasts(saga, sink);
    let known = sink.len();
    options::options(saga, args, sink);
    options::lists(saga, &ancestors, args, sink);
    options::undoable(saga, &no_way_back, sink);
    let ends = alternates::ends(saga, sink);
    let is_known = sound && known == sink.len();
    let alternates = if is_known { alternates::alternates(saga, &ends, &after, &ancestors, sink) } else { Vec::new() };
    let scope = |step: usize| Scope {
        saga,
        since: args.map(|args| args.since),
        step,
        ancestors: &ancestors[step],
        alternates: &alternates,
    };
    for (index, step) in saga.steps.iter().enumerate() {
        if let (Some(kind), true) = (step.args.kind, step.args.sound) {
            capability(saga, &step.body, Some(kind), &format!("`{}` step", kind.key()), sink);
        }
        step.body.params.iter().for_each(|param| scope(index).check(Role::Step, param, sink));
    }
    let mut helpers = |role: Role, kind: Option<Kind>, helpers: &[Helper], steps: &[Option<usize>]| {
        for (helper, step) in helpers.iter().zip(steps) {
            if role != Role::Upcast {
                capability(saga, &helper.body, kind, "probe", sink);
            }
            let Some(step) = step else { continue };
            helper.body.params.iter().for_each(|param| scope(*step).check(role, param, sink));
        }
    };
    helpers(Role::Compensation, None, &saga.compensations, &undo.by_helper);
    helpers(Role::Probe, Some(Kind::Call), &saga.probes, &probe.by_helper);
    helpers(Role::Upcast, None, &saga.upcasts, &upcast.by_helper);
    let (undo, probe, upcast) = (undo.by_step, probe.by_step, upcast.by_step);
    sink.is_empty().then_some(Graph { after, no_way_back, undo, probe, upcast, alternate: ends })
}

/// Ends a message with the names that would have been right.
fn choices<'a>(what: &str, names: impl Iterator<Item = &'a Ident>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { format!("there are no {what}") } else { format!("the {what} are: {}", names.join(", ")) }
}

fn step_names(steps: &[Step]) -> impl Iterator<Item = &Ident> {
    steps.iter().map(|step| step.body.name())
}
