//! The definition and the state, seen together.

use chrono::{DateTime, Utc};

use super::{Action, Attempt, Node, Phase, Wait};
use crate::definition::{Alternate, Definition, Step};
use crate::state::{Attempts, Fan, Forward, State, StepState, Undo, Waiting, item_name};

/// As of which moment a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// By what is known now.
    Now,
    /// When it was done first: what came after it may have begun then, whatever was found out later.
    First,
}

pub(super) struct View<'a> {
    pub(super) definition: &'a Definition,
    pub(super) state: &'a State,
    /// Empty in most sagas.
    pub(super) alternates: Vec<Alternate>,
}

impl<'a> View<'a> {
    pub(super) fn new(definition: &'a Definition, state: &'a State) -> Self {
        Self { definition, state, alternates: definition.alternates() }
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = (usize, &'a Step)> {
        self.definition.steps.iter().enumerate()
    }

    pub(super) fn step(&self, node: Node) -> &'a Step {
        &self.definition.steps[node.step]
    }

    pub(super) fn name(&self, node: Node) -> String {
        item_name(&self.step(node).name, node.item)
    }

    pub(super) fn fan(&self, step: usize) -> Option<&'a Fan> {
        let it = &self.definition.steps[step];
        if it.for_each.is_some() { self.state.fans.get(&*it.name) } else { None }
    }

    pub(super) fn record(&self, node: Node) -> Option<&'a StepState> {
        self.state.record(&self.step(node).name, node.item)
    }

    pub(super) fn forward_of(&self, node: Node) -> &'a Forward {
        const NOTHING: &Forward = &Forward::Pending(Attempts { failed: 0, due: None, since: None });
        self.record(node).map_or(NOTHING, |record| &record.forward)
    }

    /// It has no verdict, so that what happens may still depend on when it began.
    #[cfg(feature = "testing")]
    pub(super) fn is_undecided(&self, node: Node) -> bool {
        matches!(self.forward_of(node), Forward::Pending(_) | Forward::Waiting(_))
            && self.ready_at(node.step, When::First).is_some()
    }

    pub(super) fn undo_of(&self, node: Node) -> &'a Undo {
        const NOTHING: &Undo = &Undo::Pending(Attempts { failed: 0, due: None, since: None });
        self.record(node).map_or(NOTHING, |record| &record.undo)
    }

    /// The step itself, or its items once they are known. A step whose items could not be counted stands for them.
    pub(super) fn nodes(&self, step: usize) -> impl Iterator<Item = Node> + use<> {
        let items = self.fan(step).map(|fan| fan.items.len() as u32);
        let each = (0..items.unwrap_or(0)).map(move |item| Node { step, item: Some(item) });
        items.is_none().then_some(Node { step, item: None }).into_iter().chain(each)
    }

    /// The row, and its time, that made the step ready; `None` while a predecessor is not done. A step on the path of an
    /// alternate is not ready before that is taken, nor an item before it is known.
    pub(super) fn ready_at(&self, step: usize, when: When) -> Option<(i64, DateTime<Utc>)> {
        let opened = self.alternates.iter().filter(|it| it.path.contains(&step));
        let opened = opened.filter_map(|it| self.state.diverted.get(&*self.definition.steps[it.step].name)).max();
        let start = opened.copied().unwrap_or((0, self.state.started_at));
        let known = self.fan(step).map_or(start, |fan| start.max((fan.seq, fan.at)));
        let mut before = self.definition.steps[step].after.iter();
        before.try_fold(known, |latest, &before| Some(latest.max(self.done_at(before, when)?)))
    }

    /// The row, and its time, from which on what comes after the step may run.
    fn done_at(&self, step: usize, when: When) -> Option<(i64, DateTime<Utc>)> {
        if let Some(end) = self.taken_instead(step) {
            return self.done_at(end, when);
        }
        if self.is_left_out(step) {
            return Some((0, self.state.started_at));
        }
        let done = |record: &StepState| match (when, &record.forward) {
            (When::First, _) => record.done,
            (_, Forward::Succeeded { seq, at, .. } | Forward::Skipped { seq, at, .. }) => Some((*seq, *at)),
            _ => None,
        };
        match self.fan(step) {
            Some(fan) => fan.items.iter().try_fold((fan.seq, fan.at), |latest, item| Some(latest.max(done(item)?))),
            None => done(self.record(Node { step, item: None })?),
        }
    }

    /// The end of the path that was taken in place of the one that ends in this step.
    pub(super) fn taken_instead(&self, step: usize) -> Option<usize> {
        let it = &self.definition.steps[step];
        it.alternate.filter(|_| self.state.diverted.contains_key(&*it.name))
    }

    /// It is on a path that the saga may take now: not on one that was given up, nor on one for which there is no need.
    pub(super) fn is_open(&self, step: usize) -> bool {
        let is_needless = |it: &Alternate| it.path.contains(&step) && !self.is_diverted(it);
        !self.is_given_up(step) && !self.alternates.iter().any(is_needless)
    }

    /// It is on a path that was given up, and has been undone.
    pub(super) fn is_given_up(&self, step: usize) -> bool {
        self.alternates.iter().any(|alternate| self.is_diverted(alternate) && alternate.primary.contains(&step))
    }

    pub(super) fn is_diverted(&self, alternate: &Alternate) -> bool {
        self.state.diverted.contains_key(&*self.definition.steps[alternate.step].name)
    }

    pub(super) fn is_past_pivot(&self) -> bool {
        self.steps().any(|(step, it)| {
            it.pivot && matches!(self.forward_of(Node { step, item: None }), Forward::Succeeded { made_up: false, .. })
        })
    }

    /// It is newer than the saga, and the saga is past it: it goes on without.
    pub(super) fn is_left_out(&self, step: usize) -> bool {
        self.is_missed(step) && !self.definition.steps[step].upcast
    }

    /// Newer steps that the saga is past, and whose output has not been made up yet.
    pub(super) fn upcasts(&self) -> impl Iterator<Item = usize> {
        self.steps().filter(|(step, it)| it.upcast && self.is_missed(*step)).map(|(step, _)| step)
    }

    /// It is newer than the saga, and the saga is past it: it never ran, and has no output yet.
    pub(super) fn is_missed(&self, step: usize) -> bool {
        let it = &self.definition.steps[step];
        let is_new = it.since > self.state.version && !self.is_recorded(step);
        is_new
            && (step + 1..self.definition.steps.len())
                .any(|later| self.is_recorded(later) && self.is_behind(later, step))
    }

    fn is_recorded(&self, step: usize) -> bool {
        let name = &*self.definition.steps[step].name;
        self.state.steps.contains_key(name) || self.state.fans.contains_key(name)
    }

    fn is_behind(&self, later: usize, earlier: usize) -> bool {
        self.definition.ancestors(later).any(|step| step == earlier)
    }

    /// Which items of a step may be under way: the first that are not settled, as many as run at once.
    /// `before` looks at what was settled before that row.
    pub(super) fn window(&self, step: usize, before: Option<i64>) -> Vec<Node> {
        let nodes = self.nodes(step);
        let Some(each) = &self.definition.steps[step].for_each else { return nodes.collect() };
        let was_done = |node: &Node| self.record(*node).and_then(|record| record.done);
        let settled = |node: &Node| match self.forward_of(*node) {
            _ if before.is_some_and(|before| was_done(node).is_some_and(|(seq, _)| seq < before)) => true,
            Forward::Pending(_) | Forward::Waiting(_) => false,
            Forward::Succeeded { seq, .. }
            | Forward::Skipped { seq, .. }
            | Forward::Rejected { seq, .. }
            | Forward::GaveUp { seq, .. }
            | Forward::Absent { seq } => before.is_none_or(|before| *seq < before),
        };
        nodes.filter(|node| !settled(node)).take(each.concurrency as usize).collect()
    }

    /// When the first attempt at a step is due that was ready at that time; `None` is at once.
    pub(super) fn delayed(&self, step: usize, ready: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let delay = self.definition.steps[step].delay;
        if delay.is_zero() { None } else { ready.checked_add_signed(chrono::TimeDelta::from_std(delay).ok()?) }
    }
}

pub(super) fn attempt(node: Node, attempts: Attempts) -> Attempt {
    Attempt { node, number: attempts.failed.saturating_add(1), due: attempts.due, since: attempts.since }
}

/// Take the answer if there is one, wait for it otherwise.
pub(super) fn await_answer(node: Node, phase: Phase, waiting: &Waiting) -> Action {
    if waiting.answer.is_some() {
        return Action::Accept { node, phase };
    }
    let Waiting { attempt, until, since, child, .. } = waiting;
    Action::Wait(Wait { node, phase, number: *attempt, until: *until, since: *since, child: *child })
}
