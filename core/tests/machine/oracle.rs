//! What must be true of a history, worked out from the events alone, without a look at the machine.

use std::collections::BTreeSet;

use amends::event::{Event, ParkReason};
use amends::{Definition, StepKind};

/// What has happened to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Pending,
    Succeeded,
    /// `definite`: the answer to its first attempt, with no adoption since it was ready.
    Rejected {
        definite: bool,
    },
    GaveUp,
}

#[derive(Debug)]
struct Facts {
    fate: Fate,
    undone: bool,
    /// It was ready while the saga went forward, so some worker may have begun it.
    started: bool,
    adopted_since_ready: bool,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    definition: Definition,
    descendants: Vec<BTreeSet<usize>>,
    steps: Vec<Facts>,
    cancelled: bool,
    parked: Option<ParkReason>,
}

impl Oracle {
    pub(crate) fn new(definition: &Definition) -> Self {
        let count = definition.steps.len();
        let descendants =
            (0..count).map(|i| (i..count).filter(|&later| definition.ancestors(later).any(|a| a == i)).collect());
        let facts = |_| Facts { fate: Fate::Pending, undone: false, started: false, adopted_since_ready: false };
        let mut oracle = Self {
            descendants: descendants.collect(),
            steps: (0..count).map(facts).collect(),
            definition: definition.clone(),
            cancelled: false,
            parked: None,
        };
        oracle.note_started();
        oracle
    }

    pub(crate) fn past_pivot(&self) -> bool {
        self.definition.steps.iter().zip(&self.steps).any(|(step, facts)| step.pivot && facts.fate == Fate::Succeeded)
    }

    pub(crate) fn apply(&mut self, events: &[Event]) {
        for event in events {
            self.apply_event(event);
        }
        self.note_started();
    }

    /// A forward attempt is legal in a saga that goes forward, or to find out what must be known.
    pub(crate) fn check_run(&self, step: usize) {
        assert!(self.is_ready(step), "a predecessor of {step} has not succeeded");
        assert_eq!(self.steps[step].fate, Fate::Pending, "{step} has had its last attempt");
        let to_settle = self.is_unknown(step) && self.must_know(step);
        assert!(!self.is_failing() || self.past_pivot() || to_settle, "a failing saga does not begin {step}");
        assert!(self.steps[step].started);
    }

    pub(crate) fn check_compensate(&self, step: usize) {
        assert!(!self.past_pivot(), "past the pivot there is no way back");
        assert!(self.is_failing());
        assert!(self.to_undo(step), "{step} is not to be undone: {:?}", self.steps[step]);
        assert!(!self.steps[step].undone, "{step} is undone twice");
        assert!(!self.is_unknown(step) || !self.must_know(step), "{step} is undone blindly");
        for &later in &self.descendants[step] {
            assert!(!self.to_undo(later) || self.steps[later].undone, "{step} is undone before {later}");
        }
    }

    pub(crate) fn check_park(&self, reason: &ParkReason) {
        match reason {
            ParkReason::ForwardStuck { .. } => assert!(self.past_pivot()),
            ParkReason::InDoubt { step } => {
                let step = self.index(step);
                assert!(self.is_unknown(step) && self.must_know(step), "{step} is not in doubt");
                assert_ne!(self.steps[step].fate, Fate::Pending, "{step} could still be asked");
            }
            ParkReason::CompensationStuck { step } => assert!(self.to_undo(self.index(step))),
            _ => {}
        }
    }

    pub(crate) fn check_completed(&self) {
        assert!(self.steps.iter().all(|facts| facts.fate == Fate::Succeeded && !facts.undone));
    }

    pub(crate) fn check_compensated(&self) {
        assert!(self.is_failing() && !self.past_pivot());
        for (i, facts) in self.steps.iter().enumerate() {
            assert_eq!(facts.undone, self.to_undo(i), "step {i}: {facts:?}");
            assert!(!self.is_unknown(i) || !self.must_know(i), "step {i} was never settled");
        }
    }

    /// Recorded successes and unknown outcomes, as far as they have a compensation.
    fn to_undo(&self, step: usize) -> bool {
        let happened = self.steps[step].fate == Fate::Succeeded;
        self.definition.steps[step].compensation.is_some() && (happened || self.is_unknown(step))
    }

    fn is_unknown(&self, step: usize) -> bool {
        let facts = &self.steps[step];
        let no_verdict = !matches!(facts.fate, Fate::Succeeded | Fate::Rejected { definite: true });
        self.definition.steps[step].kind == StepKind::Call && facts.started && no_verdict
    }

    fn must_know(&self, step: usize) -> bool {
        let step = &self.definition.steps[step];
        step.pivot || step.compensation.as_ref().is_some_and(|undo| undo.needs_output)
    }

    fn is_failing(&self) -> bool {
        self.cancelled || self.steps.iter().any(|facts| matches!(facts.fate, Fate::Rejected { .. } | Fate::GaveUp))
    }

    fn is_ready(&self, step: usize) -> bool {
        self.definition.steps[step].after.iter().all(|&before| self.steps[before].fate == Fate::Succeeded)
    }

    fn note_started(&mut self) {
        if !self.is_failing() || self.past_pivot() {
            (0..self.steps.len()).for_each(|i| self.steps[i].started |= self.is_ready(i));
        }
    }

    fn index(&self, name: &str) -> usize {
        self.definition.step(name).unwrap().0
    }

    fn apply_event(&mut self, event: &Event) {
        match event {
            Event::Succeeded { step, .. } => {
                let step = self.index(step);
                self.steps[step].fate = Fate::Succeeded;
            }
            Event::Rejected { step, attempt, .. } => {
                let step = self.index(step);
                let definite = *attempt == 1 && !self.steps[step].adopted_since_ready;
                self.steps[step].fate = Fate::Rejected { definite };
            }
            Event::Failed { step, failure } if failure.retry_in.is_none() => {
                let step = self.index(step);
                self.steps[step].fate = Fate::GaveUp;
            }
            Event::Compensated { step } => {
                let step = self.index(step);
                assert!(!self.steps[step].undone, "{step} was undone twice");
                self.steps[step].undone = true;
            }
            Event::Adopted { .. } => {
                (0..self.steps.len()).for_each(|i| self.steps[i].adopted_since_ready |= self.is_ready(i));
            }
            Event::Cancelled { .. } => self.cancelled = true,
            Event::Parked { reason, .. } => self.parked = Some(reason.clone()),
            Event::Resumed { .. } => {
                if let Some(ParkReason::ForwardStuck { step } | ParkReason::InDoubt { step }) = self.parked.take() {
                    let step = self.index(&step);
                    self.steps[step].fate = Fate::Pending;
                }
            }
            _ => {}
        }
    }
}
