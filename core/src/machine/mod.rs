//! The heart: what a saga does next, as a pure function of its definition and its state.
//!
//! No clock, no I/O, no async; total over every legal history. The runner, the explorer, the command line's
//! preview and the model checks all call [`decide`].

use chrono::{DateTime, Utc};

use crate::SagaId;
use crate::definition::Definition;
use crate::event::{Outcome, ParkReason};
#[cfg(feature = "testing")]
use crate::state::Forward;
use crate::state::State;

mod backward;
mod forward;
mod view;

use backward::Verdict;
use view::View;

/// A saga whose workers died this many times in a row, without progress between, is parked.
pub const MAX_RECOVERIES: u32 = 8;

/// Something that a saga does next. Actions of one decision are independent of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run a step's forward action.
    Run(Attempt),
    /// Undo a step.
    Compensate(Attempt),
    /// Find out whether a step happened.
    Probe(Attempt),
    /// Wait for an answer from outside.
    Wait(Wait),
    /// Take the answer that has come.
    Accept {
        /// What it answers.
        node: Node,
        /// Which of its actions.
        phase: Phase,
    },
    /// Find out how many items a step runs for; an index into [`Definition::steps`].
    FanOut(usize),
    /// A path has been undone: take its alternate.
    Divert {
        /// The step in which the path ends, as an index into [`Definition::steps`].
        step: usize,
        /// The recorded names of the steps that failed on it.
        abandoned: Vec<String>,
    },
    /// Make up the output of a step that is newer than the saga; an index into [`Definition::steps`].
    Upcast(usize),
    /// Undo everything, if the pivot has not been passed by then.
    Expire(DateTime<Utc>),
    /// Wait for an operator.
    Park(ParkReason),
    /// It is over.
    End(Outcome),
}

/// A step, or one item of a step that runs once for every item of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node {
    /// Index into [`Definition::steps`].
    pub step: usize,
    /// Which item.
    pub item: Option<u32>,
}

/// Which action of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The step itself.
    Forward,
    /// Its compensation.
    Undo,
    /// Finding out whether it happened.
    Probe,
}

/// One attempt at a step, at its compensation or at finding out about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// What is attempted.
    pub node: Node,
    /// Which attempt it is, counted from 1.
    pub number: u32,
    /// Not before this time, by the clock of the database; `None` is at once.
    pub due: Option<DateTime<Utc>>,
    /// When an earlier attempt failed first.
    pub since: Option<DateTime<Utc>>,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// What waits.
    pub node: Node,
    /// Which of its actions.
    pub phase: Phase,
    /// Which attempt it is.
    pub number: u32,
    /// The attempt fails then; `None` is never.
    pub until: Option<DateTime<Utc>>,
    /// When an earlier attempt failed first.
    pub since: Option<DateTime<Utc>>,
    /// The saga whose end is waited for.
    pub child: Option<SagaId>,
}

/// Which way a saga is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Towards completion.
    Forward,
    /// It undoes, or settles what it must undo.
    Backward,
}

/// Decides what a saga does next.
///
/// An empty decision means that there is nothing to do here: it has ended, is parked, or was moved by a
/// newer version of this library.
pub fn decide(definition: &Definition, state: &State) -> Vec<Action> {
    if state.ended.is_some() || state.parked.is_some() || state.foreign {
        return Vec::new();
    }
    if state.recoveries >= MAX_RECOVERIES {
        return vec![Action::Park(ParkReason::CrashLoop { recoveries: state.recoveries })];
    }
    let view = View::new(definition, state);
    let upcasts: Vec<_> = view.upcasts().map(Action::Upcast).collect();
    if !upcasts.is_empty() {
        return upcasts;
    }
    match state.failing_since {
        None => view.forward(),
        Some(_) if view.has_no_way_back() => view.forward_only(),
        Some(failed) => view.backward(failed),
    }
}

/// Which way a saga in this state goes; decides the lane in which it is claimed.
pub fn direction(definition: &Definition, state: &State) -> Direction {
    match state.failing_since {
        Some(_) if !View::new(definition, state).has_no_way_back() => Direction::Backward,
        _ => Direction::Forward,
    }
}

/// Whether a pivot has succeeded, so that the saga only goes forward.
pub fn is_past_pivot(definition: &Definition, state: &State) -> bool {
    View::new(definition, state).is_past_pivot()
}

/// The steps, or items of them, that happened or may have, of a saga that has begun to fail.
pub(crate) fn may_have_happened(definition: &Definition, state: &State) -> Vec<Node> {
    let view = View::new(definition, state);
    let Some(failed) = state.failing_since else { return Vec::new() };
    let verdicts = view.steps().flat_map(|(step, _)| view.verdicts(step, failed));
    verdicts.filter(|(_, verdict)| *verdict != Verdict::DidNot).map(|(node, _)| node).collect()
}

/// Whether the last adoption still makes a difference: to what was ready before it and has no verdict yet.
#[cfg(feature = "testing")]
pub(crate) fn adoption_matters(definition: &Definition, state: &State) -> bool {
    let view = View::new(definition, state);
    let nodes = view.steps().flat_map(|(step, _)| view.nodes(step));
    nodes.into_iter().any(|node| view.is_undecided(node) && view.was_adopted_since_ready(node, state.adopted_at))
}

/// Keeps of the adoptions before a verdict only whether they make it doubtful.
#[cfg(feature = "testing")]
pub(crate) fn forget_older_adoptions(definition: &Definition, state: &mut State) {
    let before = state.clone();
    let view = View::new(definition, &before);
    for node in view.steps().flat_map(|(step, _)| view.nodes(step)) {
        let name = &definition.steps[node.step].name;
        let record = match node.item {
            None => state.steps.get_mut(&**name),
            Some(item) => state.fans.get_mut(&**name).and_then(|fan| fan.items.get_mut(item as usize)),
        };
        if let Some(Forward::Skipped { adopted_at, .. } | Forward::Rejected { adopted_at, .. }) =
            record.map(|record| &mut record.forward)
        {
            *adopted_at = if view.was_adopted_since_ready(node, *adopted_at) { i64::MAX } else { 0 };
        }
    }
}

/// Whether a saga may still come to a step, as far as anybody can say now.
pub fn may_reach(definition: &Definition, state: &State, step: usize) -> bool {
    step < definition.steps.len() && View::new(definition, state).may_reach(step)
}

impl Action {
    /// When it is due: `Some(None)` is at once, and `None` is only when something comes from outside.
    pub fn due(&self) -> Option<Option<DateTime<Utc>>> {
        match self {
            Self::Run(attempt) | Self::Compensate(attempt) | Self::Probe(attempt) => Some(attempt.due),
            Self::Wait(wait) => wait.until.map(Some),
            Self::Expire(due) => Some(Some(*due)),
            _ => Some(None),
        }
    }
}
