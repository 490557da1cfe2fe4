//! What must be true of a history, worked out from the events alone, without a look at the machine.

use std::collections::BTreeSet;
use std::time::Duration;

use amends::event::{Event, Outcome, ParkReason};
use amends::machine::{Attempt, Node, Phase};
use amends::{Definition, StepKind};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::facts::{Facts, Fate, StepFacts, UndoFate};
use crate::regions::{Region, Set, bit, regions};

/// A worker's clock may be ahead by so much.
const CLOCK_ERROR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) definition: Definition,
    regions: Vec<Region>,
    /// The ends of paths that were given up.
    diverted: Set,
    pub(crate) steps: Vec<StepFacts>,
    pub(crate) failed: Vec<Node>,
    pub(crate) cancelled: bool,
    pub(crate) parked: Option<ParkReason>,
    pub(crate) ended: Option<Outcome>,
    requests: BTreeSet<Uuid>,
}

impl Oracle {
    pub(crate) fn new(definition: &Definition) -> Self {
        let mut oracle = Self {
            regions: regions(definition),
            diverted: 0,
            steps: definition.steps.iter().map(|_| StepFacts::new()).collect(),
            definition: definition.clone(),
            failed: Vec::new(),
            cancelled: false,
            parked: None,
            ended: None,
            requests: BTreeSet::new(),
        };
        oracle.end_row(DateTime::UNIX_EPOCH);
        oracle
    }

    /// Workers may have begun by now whatever could run since the last row.
    pub(crate) fn begin_row(&mut self, at: DateTime<Utc>) {
        if self.is_going_back() || self.ended.is_some() || self.parked.is_some() {
            return;
        }
        for step in 0..self.steps.len() {
            let it = &self.definition.steps[step];
            let is_due = self.steps[step].ready_at.is_some_and(|ready| ready + it.delay <= at + CLOCK_ERROR);
            let is_counted = self.is_counted(step);
            if it.kind.waits() || !is_due || !is_counted || !self.is_open(step) || !self.is_ready(step) {
                continue;
            }
            let at_once = it.for_each.as_ref().map_or(1, |each| each.concurrency as usize);
            self.steps[step].start(at_once);
        }
    }

    pub(crate) fn apply(&mut self, events: &[Event]) {
        for event in events {
            self.apply_event(event);
        }
    }

    pub(crate) fn end_row(&mut self, at: DateTime<Utc>) {
        for step in 0..self.steps.len() {
            // An item is ready when it is known, an alternate when it is taken.
            if self.steps[step].ready_at.is_none() && self.is_counted(step) && self.is_ready(step) && self.is_open(step)
            {
                self.steps[step].ready_at = Some(at);
            }
        }
    }

    /// What a worker begins must be legal.
    pub(crate) fn check_begin(&self, attempt: Attempt, phase: Phase, now: DateTime<Utc>) {
        let (node, step) = (attempt.node, &self.definition.steps[attempt.node.step]);
        assert!(self.parked.is_none() && self.ended.is_none());
        if phase == Phase::Undo {
            return self.check_compensate(node);
        }
        assert!(self.is_open(node.step), "{node:?} is on no path that is taken");
        assert!(self.is_ready(node.step) || self.is_going_back(), "a predecessor of {node:?} is not done");
        if self.is_going_back() {
            assert!(self.is_in_doubt(node), "a saga that goes back does not begin {node:?}");
            assert!(self.scope() & bit(node.step) != 0, "{node:?} is nothing that is given up");
        }
        if phase == Phase::Probe {
            assert!(step.probe.is_some() && self.is_going_back());
            return;
        }
        assert_eq!(self.facts(node).fate, Fate::Pending, "{node:?} has had its last attempt");
        if attempt.number == 1 {
            let due = self.steps[node.step].ready_at.unwrap() + step.delay;
            assert!(due <= now + CLOCK_ERROR, "{node:?} begins before its delay is over");
        }
    }

    /// So many nodes of one step are under way.
    pub(crate) fn check_concurrency(&self, step: usize, flying: usize) {
        let waiting = self.steps[step].all().iter().filter(|facts| matches!(facts.fate, Fate::Waiting { .. })).count();
        let most = self.definition.steps[step].for_each.as_ref().map_or(1, |each| each.concurrency);
        assert!(flying + waiting <= most as usize, "{flying} and {waiting} items of {step} at once");
    }

    fn check_compensate(&self, node: Node) {
        let facts = self.facts(node);
        assert!(self.is_going_back(), "it does not go back, and undoes {node:?}");
        assert!(self.scope() & bit(node.step) != 0, "{node:?} is outside the path that is given up");
        assert!(self.is_to_be_undone(node), "{node:?} is not to be undone: {facts:?}");
        assert_ne!(facts.undo, UndoFate::Done, "{node:?} is undone twice");
        assert!(!self.is_in_doubt(node), "{node:?} is undone blindly");
        let heard = self.definition.steps[node.step].kind != StepKind::Signal
            && matches!(facts.fate, Fate::Waiting { answered: true, .. });
        assert!(!heard, "{node:?} is undone without a look at the answer");
        let behind = self.behind(bit(node.step));
        for later in (0..self.steps.len()).filter(|step| behind & bit(*step) != 0).flat_map(|step| self.nodes(step)) {
            assert!(!self.must_still_be_undone(later), "{node:?} is undone before {later:?}");
        }
    }

    /// All that comes after these; an alternate that was taken stands for the step that it replaces.
    fn behind(&self, set: Set) -> Set {
        let mut behind = 0;
        loop {
            let before = behind;
            for (later, it) in self.definition.steps.iter().enumerate() {
                let reaches = it.after.iter().any(|&first| {
                    let stands = std::iter::successors(Some(first), |step| {
                        self.definition.steps[*step].alternate.filter(|_| self.diverted & bit(*step) != 0)
                    });
                    stands.into_iter().any(|step| (set | behind) & bit(step) != 0)
                });
                behind |= if reaches { bit(later) } else { 0 };
            }
            if behind == before {
                return behind;
            }
        }
    }

    pub(super) fn check_park(&self, reason: &ParkReason) {
        let node = reason.step().map(|step| self.node(step));
        match (reason, node) {
            (ParkReason::ForwardStuck { .. }, Some(node)) => {
                assert!(self.is_past_pivot() && self.failed.contains(&node), "{node:?} is not stuck");
            }
            (ParkReason::InDoubt { .. }, Some(node)) => {
                assert!(self.is_in_doubt(node) && self.is_going_back(), "{node:?} is not in doubt");
                let is_asked = self.definition.steps[node.step].probe.is_some();
                assert!(is_asked || self.facts(node).fate != Fate::Pending, "{node:?} could still be asked");
            }
            (ParkReason::CompensationStuck { .. }, Some(node)) => {
                assert!(self.must_still_be_undone(node) && self.facts(node).undo == UndoFate::Stuck);
            }
            _ => {}
        }
    }

    pub(super) fn divert(&mut self, step: usize, abandoned: &[String]) {
        let region = *self.regions.iter().find(|region| region.step == step).unwrap();
        assert!((!self.cancelled || self.is_past_pivot()) && self.diverted & bit(step) == 0);
        let on_it = self.failed.iter().filter(|node| region.primary & bit(node.step) != 0).count();
        let is_new = |name: &&String| self.failed.contains(&self.node(name));
        assert!(
            !abandoned.is_empty() && on_it == abandoned.iter().filter(is_new).count(),
            "not what failed: {abandoned:?}"
        );
        for node in
            (0..self.steps.len()).filter(|step| region.primary & bit(*step) != 0).flat_map(|step| self.nodes(step))
        {
            assert!(!self.must_still_be_undone(node), "{node:?} is given up but not undone");
            assert!(!self.is_in_doubt(node), "{node:?} is given up but was never settled");
        }
        self.diverted |= bit(step);
        self.failed.retain(|node| region.primary & bit(node.step) == 0);
    }

    pub(super) fn check_end(&self, outcome: Outcome) {
        let nodes = (0..self.steps.len()).flat_map(|step| self.nodes(step));
        if outcome == Outcome::Completed {
            assert!(!self.is_going_back(), "it goes back, and is completed");
            for node in nodes {
                let facts = self.facts(node);
                if self.is_open(node.step) {
                    assert!(self.is_done(node.step), "{node:?} is not done: {facts:?}");
                    assert_ne!(facts.undo, UndoFate::Done, "{node:?} was undone");
                } else if !self.is_abandoned(node.step) {
                    assert!(facts.fate == Fate::Pending && !facts.started, "{node:?} was not called for");
                }
                assert!(!self.is_abandoned(node.step) || !self.must_still_be_undone(node), "{node:?} is left behind");
            }
            return;
        }
        assert!(self.is_going_back() && !self.is_past_pivot(), "it does not go back, and is compensated");
        for node in nodes {
            let facts = self.facts(node);
            let is_right = match facts.undo {
                UndoFate::Done => self.is_to_be_undone(node) || self.was_told_too_late(node),
                UndoFate::Waiting => self.was_told_too_late(node),
                _ => !self.is_to_be_undone(node),
            };
            assert!(is_right, "{node:?}: {facts:?}");
            assert!(!self.is_in_doubt(node), "{node:?} was never settled");
        }
    }

    pub(crate) fn is_past_pivot(&self) -> bool {
        let steps = self.definition.steps.iter().zip(&self.steps);
        steps.into_iter().any(|(step, facts)| step.pivot && facts.of(None).fate == Fate::Succeeded)
    }

    pub(crate) fn is_going_back(&self) -> bool {
        // Past the pivot a path that has an alternate is still given up, and nothing else.
        if self.is_past_pivot() { self.scope() != 0 } else { self.cancelled || !self.failed.is_empty() }
    }

    /// The innermost paths around all that failed, if they all have an alternate.
    fn scope(&self) -> Set {
        let innermost = |node: &Node| {
            let around =
                self.regions.iter().filter(|it| self.diverted & bit(it.step) == 0 && it.primary & bit(node.step) != 0);
            let innermost = around.map(|region| region.primary).min_by_key(|primary| primary.count_ones());
            innermost.unwrap_or(if self.is_past_pivot() { 0 } else { Set::MAX })
        };
        if self.cancelled && !self.is_past_pivot() {
            Set::MAX
        } else {
            self.failed.iter().fold(0, |set, node| set | innermost(node))
        }
    }

    /// Recorded successes and unknown outcomes, as far as they have a compensation.
    pub(crate) fn is_to_be_undone(&self, node: Node) -> bool {
        let happened = self.facts(node).fate == Fate::Succeeded;
        self.definition.steps[node.step].compensation.is_some() && (happened || self.is_unknown(node))
    }

    pub(crate) fn must_still_be_undone(&self, node: Node) -> bool {
        self.is_to_be_undone(node) && self.facts(node).undo != UndoFate::Done
    }

    /// It was being undone, since nobody knew whether it had happened, when the answer came that it had not.
    fn was_told_too_late(&self, node: Node) -> bool {
        self.facts(node).fate == Fate::Rejected { definite: true } && self.definition.steps[node.step].kind.waits()
    }

    fn is_unknown(&self, node: Node) -> bool {
        let step = &self.definition.steps[node.step];
        if step.kind.is_certain() || (step.for_each.is_some() && node.item.is_none()) {
            return false;
        }
        match self.facts(node).fate {
            Fate::Succeeded | Fate::Absent => false,
            Fate::Skipped { definite } | Fate::Rejected { definite } => !definite,
            Fate::Waiting { .. } | Fate::GaveUp { .. } => true,
            Fate::Pending => self.facts(node).started,
        }
    }

    /// Unknown, and nothing can be done about it without knowing. A saga that was started can be undone by its id.
    fn is_in_doubt(&self, node: Node) -> bool {
        let step = &self.definition.steps[node.step];
        let needs_it = step.compensation.as_ref().is_some_and(|undo| undo.needs_output);
        self.is_unknown(node) && (step.pivot || needs_it)
    }

    pub(crate) fn is_ready(&self, step: usize) -> bool {
        self.definition.steps[step].after.iter().all(|&before| self.is_done(before))
    }

    fn is_done(&self, step: usize) -> bool {
        let it = &self.definition.steps[step];
        if let Some(instead) = it.alternate.filter(|_| self.diverted & bit(step) != 0) {
            return self.is_done(instead);
        }
        let is_counted = self.is_counted(step);
        let done = |facts: &Facts| matches!(facts.fate, Fate::Succeeded | Fate::Skipped { .. });
        (is_counted || done(self.steps[step].of(None))) && self.steps[step].all().iter().all(done)
    }

    /// It is known how many items it runs for.
    fn is_counted(&self, step: usize) -> bool {
        self.definition.steps[step].for_each.is_none() || self.steps[step].items.is_some()
    }

    pub(crate) fn is_abandoned(&self, step: usize) -> bool {
        self.regions.iter().any(|region| self.diverted & bit(region.step) != 0 && region.primary & bit(step) != 0)
    }

    pub(crate) fn is_open(&self, step: usize) -> bool {
        let is_taken = |region: &Region| self.diverted & bit(region.step) != 0 || region.path & bit(step) == 0;
        !self.is_abandoned(step) && self.regions.iter().all(is_taken)
    }

    pub(crate) fn facts(&self, node: Node) -> &Facts {
        self.steps[node.step].of(node.item)
    }

    /// The step, or its items once they are known.
    pub(crate) fn nodes(&self, step: usize) -> impl Iterator<Item = Node> + use<> {
        let items = self.steps[step].items.as_ref().map(|items| items.len() as u32);
        let each = (0..items.unwrap_or(0)).map(move |item| Node { step, item: Some(item) });
        items.is_none().then_some(Node { step, item: None }).into_iter().chain(each)
    }

    /// The node of that recorded name, such as `s3[1]`.
    #[expect(clippy::unused_self, reason = "it reads best beside the other look-ups")]
    pub(crate) fn node(&self, name: &str) -> Node {
        let (step, item) = name.split_once('[').map_or((name, None), |(step, item)| (step, item.strip_suffix(']')));
        Node { step: step[1..].parse().unwrap(), item: item.map(|item| item.parse().unwrap()) }
    }

    pub(super) fn is_repetition(&mut self, id: Uuid) -> bool {
        !self.requests.insert(id)
    }
}
