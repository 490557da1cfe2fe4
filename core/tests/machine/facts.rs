//! What is known of each step, and of each item of it, from the events alone.

use amends::StepKind;
use amends::event::{Answer, Event, ParkReason};
use amends::machine::Node;
use chrono::{DateTime, Utc};

use crate::oracle::Oracle;

/// What has happened to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Pending,
    Waiting {
        attempt: u32,
        answered: bool,
    },
    Succeeded,
    /// `definite`: no attempt but the one that said so can have taken effect.
    Skipped {
        definite: bool,
    },
    Rejected {
        definite: bool,
    },
    GaveUp {
        attempts: u32,
    },
    Absent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UndoFate {
    Pending,
    Waiting,
    Stuck,
    Done,
}

#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) fate: Fate,
    pub(crate) undo: UndoFate,
    /// Some worker may have begun it, or has.
    pub(crate) started: bool,
}

impl Facts {
    pub(crate) const fn is_unsettled(&self) -> bool {
        matches!(self.fate, Fate::Pending | Fate::Waiting { .. })
    }
}

const NOTHING: Facts = Facts { fate: Fate::Pending, undo: UndoFate::Pending, started: false };

#[derive(Debug, Clone)]
pub(crate) struct StepFacts {
    own: Facts,
    pub(crate) items: Option<Vec<Facts>>,
    /// Since when it may run.
    pub(crate) ready_at: Option<DateTime<Utc>>,
    pub(crate) adopted_since_ready: bool,
}

impl StepFacts {
    pub(crate) const fn new() -> Self {
        Self { own: NOTHING, items: None, ready_at: None, adopted_since_ready: false }
    }

    pub(crate) fn of(&self, item: Option<u32>) -> &Facts {
        match (item, &self.items) {
            (Some(item), Some(items)) => &items[item as usize],
            _ => &self.own,
        }
    }

    fn of_mut(&mut self, item: Option<u32>) -> &mut Facts {
        match (item, &mut self.items) {
            (Some(item), Some(items)) => &mut items[item as usize],
            _ => &mut self.own,
        }
    }

    /// The first so many that are not settled may have been begun.
    pub(crate) fn start(&mut self, at_once: usize) {
        let all = self.items.as_deref_mut().unwrap_or(std::slice::from_mut(&mut self.own));
        all.iter_mut().filter(|facts| facts.is_unsettled()).take(at_once).for_each(|facts| facts.started = true);
    }

    pub(crate) fn all(&self) -> &[Facts] {
        self.items.as_deref().unwrap_or(std::slice::from_ref(&self.own))
    }
}

impl Oracle {
    fn facts_mut(&mut self, node: Node) -> &mut Facts {
        self.steps[node.step].of_mut(node.item)
    }

    fn fail(&mut self, node: Node) {
        if !self.is_abandoned(node.step) && !self.failed.contains(&node) {
            self.failed.push(node);
        }
    }

    fn forgive(&mut self, node: Node) {
        self.failed.retain(|other| *other != node);
    }

    fn is_definite(&self, node: Node, attempt: u32) -> bool {
        match self.definition.steps[node.step].kind {
            StepKind::Request => attempt == 1,
            StepKind::Call => attempt == 1 && !self.steps[node.step].adopted_since_ready,
            _ => true,
        }
    }

    fn set(&mut self, node: Node, fate: Fate) {
        self.facts_mut(node).fate = fate;
    }

    pub(super) fn apply_event(&mut self, event: &Event) {
        match event {
            Event::Succeeded { step, .. } => self.set(self.node(step), Fate::Succeeded),
            Event::Skipped { step, attempt, .. } => {
                let node = self.node(step);
                self.set(node, Fate::Skipped { definite: self.is_definite(node, *attempt) });
            }
            Event::Rejected { step, attempt, .. } => self.reject(self.node(step), *attempt),
            // A late answer was faster.
            Event::Failed { step, .. } | Event::Probed { step, .. }
                if self.facts(self.node(step)).fate == Fate::Succeeded => {}
            Event::CompensationFailed { step, .. } if self.facts(self.node(step)).undo == UndoFate::Done => {}
            Event::Failed { step, failure } => {
                let node = self.node(step);
                self.facts_mut(node).started = true;
                self.set(node, Fate::Pending);
                if failure.retry_in.is_none() {
                    self.set(node, Fate::GaveUp { attempts: failure.attempt });
                    self.fail(node);
                }
            }
            Event::Begun { step, undo: false, attempt, .. } => {
                let node = self.node(step);
                self.facts_mut(node).started = true;
                self.set(node, Fate::Waiting { attempt: *attempt, answered: false });
            }
            Event::Begun { step, .. } => self.facts_mut(self.node(step)).undo = UndoFate::Waiting,
            Event::Replied { id, step, undo, attempt, answer } => {
                // Once it has ended nothing is listened to.
                let counts = self.ended.is_none() && !self.is_repetition(*id);
                if counts {
                    self.reply(self.node(step), *undo, *attempt, answer);
                }
            }
            Event::FannedOut { step, items } => {
                let node = self.node(step);
                self.steps[node.step].items = Some(vec![NOTHING; *items as usize]);
            }
            Event::Probed { step, output } => {
                let node = self.node(step);
                if output.is_some() {
                    self.set(node, Fate::Succeeded);
                    self.forgive(node);
                } else {
                    self.set(node, Fate::Absent);
                    self.fail(node);
                }
            }
            Event::Diverted { step, abandoned } => self.divert(self.node(step).step, abandoned),
            Event::Compensated { step } => {
                let node = self.node(step);
                assert_ne!(self.facts(node).undo, UndoFate::Done, "{step} was undone twice");
                self.facts_mut(node).undo = UndoFate::Done;
            }
            Event::CompensationFailed { step, failure } => {
                let undo = if failure.retry_in.is_some() { UndoFate::Pending } else { UndoFate::Stuck };
                self.facts_mut(self.node(step)).undo = undo;
            }
            Event::Adopted { .. } => {
                for step in 0..self.steps.len() {
                    self.steps[step].adopted_since_ready |= self.steps[step].ready_at.is_some();
                }
            }
            Event::DeadlinePassed => {
                assert!(!self.is_past_pivot(), "past the pivot the deadline does not count");
                self.cancelled = true;
            }
            Event::Cancelled { id, reopens, .. } if !self.is_repetition(*id) => {
                self.ended = self.ended.filter(|_| !reopens);
                self.cancelled = true;
                self.parked.take_if(|reason| matches!(reason, ParkReason::CrashLoop { .. }));
            }
            Event::Parked { reason, .. } => {
                self.check_park(reason);
                self.parked = Some(reason.clone());
            }
            Event::Resumed { id, .. } if !self.is_repetition(*id) => self.resume(),
            Event::Overruled { id, step, output, .. } if !self.is_repetition(*id) => {
                self.overrule(self.node(step), output.is_some());
            }
            Event::Ended { outcome, .. } => {
                self.check_end(*outcome);
                self.ended = Some(*outcome);
            }
            _ => {}
        }
    }

    fn reject(&mut self, node: Node, attempt: u32) {
        self.set(node, Fate::Rejected { definite: self.is_definite(node, attempt) });
        self.fail(node);
    }

    fn reply(&mut self, node: Node, undo: bool, attempt: u32, answer: &Answer) {
        let is_done = matches!(answer, Answer::Done(_));
        let facts = self.facts(node);
        if undo {
            if is_done && matches!(facts.undo, UndoFate::Pending | UndoFate::Stuck) {
                self.facts_mut(node).undo = UndoFate::Done;
                self.unpark(node);
            }
            return;
        }
        match facts.fate {
            Fate::Waiting { attempt: current, answered: false } if is_done || attempt == current => {
                self.set(node, Fate::Waiting { attempt: current, answered: true });
            }
            Fate::Pending | Fate::GaveUp { .. } if is_done => {
                self.set(node, Fate::Succeeded);
                if let Some(ParkReason::ForwardStuck { .. } | ParkReason::InDoubt { .. }) = self.unpark(node) {
                    self.forgive(node);
                }
            }
            Fate::GaveUp { attempts } if attempts == attempt => {
                self.reject(node, attempt);
                self.unpark(node);
            }
            _ => {}
        }
    }

    fn unpark(&mut self, node: Node) -> Option<ParkReason> {
        let is_it = self.parked.as_ref().is_some_and(|reason| reason.step().map(|step| self.node(step)) == Some(node));
        if is_it { self.parked.take() } else { None }
    }

    fn resume(&mut self) {
        match self.parked.take() {
            Some(ParkReason::ForwardStuck { step } | ParkReason::InDoubt { step }) => {
                let node = self.node(&step);
                self.facts_mut(node).started = true;
                self.set(node, Fate::Pending);
                self.forgive(node);
            }
            Some(ParkReason::CompensationStuck { .. }) => {
                for step in &mut self.steps {
                    let all = step.items.iter_mut().flatten().chain([&mut step.own]);
                    all.filter(|facts| facts.undo == UndoFate::Stuck).for_each(|facts| facts.undo = UndoFate::Pending);
                }
            }
            _ => {}
        }
    }

    fn overrule(&mut self, node: Node, happened: bool) {
        match (self.unpark(node), happened) {
            (Some(ParkReason::CompensationStuck { .. }), _) => self.facts_mut(node).undo = UndoFate::Done,
            (Some(ParkReason::InDoubt { .. }), false) => {
                self.set(node, Fate::Absent);
                self.fail(node);
            }
            (Some(_), _) => {
                self.set(node, if happened { Fate::Succeeded } else { Fate::Skipped { definite: true } });
                self.forgive(node);
            }
            (None, _) => {}
        }
    }
}
