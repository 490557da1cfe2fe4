//! Back to where it began, or to a savepoint.

use chrono::{DateTime, TimeDelta, Utc};

use super::view::{View, When, attempt, await_answer};
use super::{Action, Node, Phase};
use crate::definition::{Alternate, Step, StepKind};
use crate::event::{Outcome, ParkReason};
use crate::state::{Attempts, Forward, Undo, split_name};

/// A worker's idea of the database's clock may be ahead by this much, so that it begins a delayed step too early.
const CLOCK_ERROR: TimeDelta = TimeDelta::seconds(1);

/// What is known of a step once the saga has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Happened,
    DidNot,
    Unknown,
}

/// Where a failing saga goes back to.
struct Retreat<'a> {
    /// The paths that are given up for their alternates; if there are none, everything is undone.
    given_up: Vec<&'a Alternate>,
}

impl Retreat<'_> {
    fn covers(&self, step: usize) -> bool {
        self.given_up.is_empty() || self.given_up.iter().any(|alternate| alternate.primary.contains(&step))
    }
}

enum Settling {
    Settled,
    Running(Vec<Action>),
    Stuck(ParkReason),
}

impl View<'_> {
    pub(super) fn backward(&self, failed: (i64, DateTime<Utc>)) -> Vec<Action> {
        let retreat = Retreat { given_up: self.alternates_left() };
        let failed = self.went_back_since(failed, &retreat);
        let nodes: Vec<_> = self
            .steps()
            .filter(|(step, _)| retreat.covers(*step) && !self.is_given_up(*step))
            .flat_map(|(step, _)| self.verdicts(step, failed))
            .collect();
        match self.settle(&nodes) {
            Settling::Running(actions) => return actions,
            Settling::Stuck(reason) => return vec![Action::Park(reason)],
            Settling::Settled => {}
        }
        match self.compensate(&nodes) {
            Settling::Running(actions) => actions,
            Settling::Stuck(reason) => vec![Action::Park(reason)],
            Settling::Settled if retreat.given_up.is_empty() => vec![Action::End(Outcome::Compensated)],
            Settling::Settled => retreat.given_up.into_iter().map(|alternate| self.divert(alternate)).collect(),
        }
    }

    /// A saga that is past its pivot went forward until the path failed that it gives up.
    fn went_back_since(&self, failed: (i64, DateTime<Utc>), retreat: &Retreat<'_>) -> (i64, DateTime<Utc>) {
        let passed = self.steps().filter(|(_, it)| it.pivot).filter_map(|(step, _)| {
            match self.forward_of(Node { step, item: None }) {
                Forward::Succeeded { seq, made_up: false, .. } => Some(*seq),
                _ => None,
            }
        });
        let is_on_it = |name: &str| self.index(name).is_some_and(|step| retreat.covers(step));
        let on_it = self.state.failed.iter().filter(|(name, _)| is_on_it(name)).map(|(_, since)| *since).min();
        match (passed.min(), on_it) {
            (Some(passed), Some(since)) if since.0 > passed => self.failing_all_along(since, is_on_it),
            _ => failed,
        }
    }

    /// A path that is given up went back already before `since`, if another step of it had failed then and was sent on only
    /// later.
    fn failing_all_along(&self, since: (i64, DateTime<Utc>), is_on_it: impl Fn(&str) -> bool) -> (i64, DateTime<Utc>) {
        let earlier = self
            .state
            .sent_on
            .iter()
            .filter(|(name, failed, sent_on)| is_on_it(name) && *failed < since && since.0 <= *sent_on);
        match earlier.map(|(_, failed, _)| *failed).min() {
            Some(failed) => self.failing_all_along(failed, is_on_it),
            None => since,
        }
    }

    /// A saga that goes back for good comes to no step any more, and to none on a path that it gives up.
    pub(super) fn may_reach(&self, step: usize) -> bool {
        if self.is_given_up(step) || self.is_left_out(step) {
            return false;
        }
        let Some(failed) = self.state.failing_since.filter(|_| !self.has_no_way_back()) else { return true };
        let failed = self.went_back_since(failed, &Retreat { given_up: self.alternates_left() });
        // A pivot that is under way, or was, may turn out to happen: then there is no way back after all.
        if self.steps().any(|(pivot, it)| it.pivot && self.may_yet_happen(pivot, failed)) {
            return true;
        }
        let is_past_pivot = self.is_past_pivot();
        let is_no_hindrance = |name: &String| {
            let is_on_another_path =
                self.innermost_alternate(name).map_or(is_past_pivot, |alternate| !alternate.primary.contains(&step));
            is_on_another_path || self.may_be_forgiven(name, failed)
        };
        (self.state.cancelled_at.is_none() || is_past_pivot) && self.state.failed.keys().all(is_no_hindrance)
    }

    fn may_yet_happen(&self, step: usize, failed: (i64, DateTime<Utc>)) -> bool {
        let is_open = matches!(self.forward_of(Node { step, item: None }), Forward::Pending(_) | Forward::Waiting(_));
        let is_ready = is_open && self.ready_at(step, When::First).is_some();
        is_ready || self.verdicts(step, failed).iter().any(|(_, verdict)| *verdict == Verdict::Unknown)
    }

    /// It must be found out whether the step happened, and if it did, the saga goes on.
    fn may_be_forgiven(&self, name: &str, failed: (i64, DateTime<Utc>)) -> bool {
        let step = self.index(name).filter(|step| self.definition.steps[*step].must_know());
        let is_it = |(node, verdict): &(Node, Verdict)| *verdict == Verdict::Unknown && self.name(*node) == name;
        step.is_some_and(|step| self.verdicts(step, failed).iter().any(is_it))
    }

    /// A pivot has succeeded, and no path is to be given up for its alternate: neither is behind the other.
    pub(super) fn has_no_way_back(&self) -> bool {
        self.is_past_pivot() && self.alternates_left().is_empty()
    }

    /// The innermost path around each failure that has an alternate; none, if a failure has none or the saga was cancelled.
    pub(super) fn alternates_left(&self) -> Vec<&Alternate> {
        let mut given_up: Vec<&Alternate> = Vec::new();
        // Past the pivot a cancellation is moot, and what has no alternate waits for an operator.
        let is_past_pivot = !self.alternates.is_empty() && self.is_past_pivot();
        if self.alternates.is_empty() || (self.state.cancelled_at.is_some() && !is_past_pivot) {
            return given_up;
        }
        for name in self.state.failed.keys() {
            let Some(innermost) = self.innermost_alternate(name) else {
                if is_past_pivot {
                    continue;
                }
                return Vec::new();
            };
            if !given_up.iter().any(|it| it.step == innermost.step) {
                given_up.push(innermost);
            }
        }
        given_up
    }

    /// What is left to take in place of the path on which a step failed.
    fn innermost_alternate(&self, failed: &str) -> Option<&Alternate> {
        let step = self.index(failed)?;
        let around = self.alternates.iter().filter(|it| !self.is_diverted(it) && it.primary.contains(&step));
        around.min_by_key(|it| it.primary.len())
    }

    fn divert(&self, alternate: &Alternate) -> Action {
        let is_on_it = |name: &&String| self.index(name).is_some_and(|step| alternate.primary.contains(&step));
        Action::Divert { step: alternate.step, abandoned: self.state.failed.keys().filter(is_on_it).cloned().collect() }
    }

    fn index(&self, name: &str) -> Option<usize> {
        Some(self.definition.step(split_name(name).0)?.0)
    }

    /// What is known of a step, or of each of its items.
    pub(super) fn verdicts(&self, step: usize, failed: (i64, DateTime<Utc>)) -> Vec<(Node, Verdict)> {
        let begun = self.window(step, Some(failed.0));
        self.nodes(step).map(|node| (node, self.verdict(node, failed, begun.contains(&node)))).collect()
    }

    /// A call counts as started as soon as it was ready: its worker may have died between effect and record. What waits
    /// for an answer has begun only when its record says so, since the message went with it.
    fn verdict(&self, node: Node, (failed_seq, failed_at): (i64, DateTime<Utc>), in_window: bool) -> Verdict {
        let step = self.step(node);
        if step.kind.is_certain() {
            let happened = matches!(self.forward_of(node), Forward::Succeeded { made_up: false, .. });
            return if happened { Verdict::Happened } else { Verdict::DidNot };
        }
        match self.forward_of(node) {
            Forward::Succeeded { made_up: true, .. } | Forward::Absent { .. } => Verdict::DidNot,
            Forward::Succeeded { .. } => Verdict::Happened,
            // Its items could not be counted, so none of them began.
            _ if step.for_each.is_some() && node.item.is_none() => Verdict::DidNot,
            Forward::GaveUp { .. } | Forward::Waiting(_) => Verdict::Unknown,
            Forward::Skipped { attempt: 0, .. } => Verdict::DidNot,
            Forward::Skipped { attempt, adopted_at, .. } | Forward::Rejected { attempt, adopted_at, .. } => {
                if self.is_definite(node, *attempt, *adopted_at) { Verdict::DidNot } else { Verdict::Unknown }
            }
            Forward::Pending(attempts) if attempts.failed > 0 => Verdict::Unknown,
            Forward::Pending(_) if step.kind.waits() || !in_window || !self.is_open(node.step) => Verdict::DidNot,
            Forward::Pending(_) => match self.ready_at(node.step, When::First) {
                Some((ready, at)) if ready < failed_seq && !self.is_missed(node.step) => {
                    let too_early = self.delayed(node.step, at).is_some_and(|due| due > failed_at + CLOCK_ERROR);
                    if too_early { Verdict::DidNot } else { Verdict::Unknown }
                }
                _ => Verdict::DidNot,
            },
        }
    }

    /// Only the answer to a first attempt is: otherwise an earlier request may still arrive (`core/tests/models/ownership`).
    fn is_definite(&self, node: Node, attempt: u32, adopted_at: i64) -> bool {
        match self.step(node).kind {
            // The child itself says so.
            StepKind::Child => true,
            // A message is sent once, with the record that it was.
            StepKind::Request => attempt == 1,
            _ => attempt == 1 && !self.was_adopted_since_ready(node, adopted_at),
        }
    }

    /// Another worker may have begun the step before the adoption.
    pub(super) fn was_adopted_since_ready(&self, node: Node, adopted_at: i64) -> bool {
        self.ready_at(node.step, When::First).is_none_or(|(ready, _)| adopted_at > ready)
    }

    /// An unknown outcome that cannot be undone blindly is found out first.
    fn settle(&self, nodes: &[(Node, Verdict)]) -> Settling {
        let (mut running, mut stuck) = (Vec::new(), None);
        for &(node, verdict) in nodes {
            if verdict != Verdict::Unknown {
                continue;
            }
            let step = self.step(node);
            match self.forward_of(node) {
                // What has been said already is listened to, whoever asks.
                Forward::Waiting(waiting) if waiting.answer.is_some() => {
                    running.push(await_answer(node, Phase::Forward, waiting));
                }
                _ if !step.must_know() => {}
                Forward::Waiting(waiting) => running.push(await_answer(node, Phase::Forward, waiting)),
                forward => match self.find_out(node, step, forward) {
                    Some(action) => running.push(action),
                    None => stuck = stuck.or_else(|| Some(ParkReason::InDoubt { step: self.name(node) })),
                },
            }
        }
        outcome(running, stuck)
    }

    /// By its probe where it has one, otherwise by asking again under the same key.
    fn find_out(&self, node: Node, step: &Step, forward: &Forward) -> Option<Action> {
        if step.probe.is_none() {
            return match forward {
                Forward::Pending(_) => self.run(node),
                _ => None,
            };
        }
        match self.record(node).map(|record| &record.probe) {
            None => Some(Action::Probe(attempt(node, Attempts::default()))),
            Some(Undo::Pending(attempts)) => Some(Action::Probe(attempt(node, *attempts))),
            Some(_) => None,
        }
    }

    /// Reverse topological order, parallel where forward was parallel.
    fn compensate(&self, nodes: &[(Node, Verdict)]) -> Settling {
        let is_open = |(node, verdict): &&(Node, Verdict)| {
            *verdict != Verdict::DidNot && self.step(*node).compensation.is_some() && *self.undo_of(*node) != Undo::Done
        };
        let open: Vec<Node> = nodes.iter().filter(is_open).map(|(node, _)| *node).collect();
        let mut blocked = vec![false; self.definition.steps.len()];
        for node in &open {
            self.block_before(&mut blocked, node.step);
        }
        let (mut running, mut stuck) = (Vec::new(), None);
        for node in open.into_iter().filter(|node| !blocked[node.step]).rev() {
            match self.undo_of(node) {
                Undo::Pending(attempts) => running.push(Action::Compensate(attempt(node, *attempts))),
                Undo::Waiting(waiting) => running.push(await_answer(node, Phase::Undo, waiting)),
                Undo::Done => {}
                Undo::GaveUp { .. } => stuck = Some(ParkReason::CompensationStuck { step: self.name(node) }),
            }
        }
        outcome(running, stuck)
    }

    /// What came before a step, also what was taken in the place of it, is undone after it.
    fn block_before(&self, blocked: &mut [bool], step: usize) {
        for &before in self.definition.steps[step].after.iter() {
            let instead = std::iter::successors(Some(before), |step| self.taken_instead(*step));
            for before in instead {
                if !blocked[before] {
                    blocked[before] = true;
                    self.block_before(blocked, before);
                }
            }
        }
    }
}

/// What is stuck waits for what still runs.
fn outcome(running: Vec<Action>, stuck: Option<ParkReason>) -> Settling {
    match (running.is_empty(), stuck) {
        (false, _) => Settling::Running(running),
        (true, Some(reason)) => Settling::Stuck(reason),
        (true, None) => Settling::Settled,
    }
}
