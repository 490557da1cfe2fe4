//! Where a saga stands: the fold of its journal, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::Json;
use crate::event::{Event, Failure, JournalRow, Outcome, ParkReason, Rejection};

/// The state of a saga after some prefix of its journal.
///
/// It knows no clock: every time in it was written by the database with the row that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What the saga was started with.
    pub input: Json,
    /// The sequence number of the last row folded in; 0 before the first.
    pub seq: i64,
    /// What is recorded of each step, by name. A step without a record has not been heard of.
    pub steps: BTreeMap<String, StepState>,
    /// The row of the last adoption; 0 if there was none.
    pub adopted_at: i64,
    /// Adoptions in a row without any progress between them.
    pub recoveries: u32,
    /// The row of the first cancellation.
    pub cancelled_at: Option<i64>,
    /// The row in which the saga began to fail: by a rejection, by attempts used up, or by a cancellation. An operator
    /// who sends on the last such step ends it; while another is left, the saga has been failing all the time.
    pub failing_since: Option<i64>,
    /// Set while the saga waits for an operator.
    pub parked: Option<ParkReason>,
    /// Set once the saga has come to its end.
    pub ended: Option<Outcome>,
    /// A newer version wrote something that this one does not understand.
    pub foreign: bool,
    /// Requests from outside that have been taken; a repetition changes nothing.
    pub requests: BTreeSet<Uuid>,
}

/// What is recorded of one step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepState {
    /// How its forward action stands.
    pub forward: Forward,
    /// How its compensation stands.
    pub undo: Undo,
}

/// How a step's forward action stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// No verdict yet.
    Pending(Attempts),
    /// It happened.
    Succeeded {
        /// What it returned.
        output: Json,
        /// The row that recorded it.
        seq: i64,
    },
    /// Its last attempt was answered with a definite *no*.
    Rejected {
        /// Why.
        rejection: Rejection,
        /// Which attempt was answered so.
        attempt: u32,
        /// The row of the last adoption before it.
        adopted_at: i64,
        /// The row that recorded it.
        seq: i64,
    },
    /// Its attempts are used up.
    GaveUp {
        /// How many there were.
        attempts: u32,
        /// The row that recorded it.
        seq: i64,
    },
}

/// How a compensation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// Not done.
    Pending(Attempts),
    /// Done.
    Done,
    /// Its attempts are used up.
    GaveUp {
        /// How many there were.
        attempts: u32,
    },
}

/// Attempts that failed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempts {
    /// How many.
    pub failed: u32,
    /// The next one is not due before this.
    pub due: Option<DateTime<Utc>>,
}

impl Default for Forward {
    fn default() -> Self {
        Self::Pending(Attempts::default())
    }
}

impl Default for Undo {
    fn default() -> Self {
        Self::Pending(Attempts::default())
    }
}

impl State {
    /// A saga that has just been started.
    pub fn new(input: Json) -> Self {
        Self {
            input,
            seq: 0,
            steps: BTreeMap::new(),
            adopted_at: 0,
            recoveries: 0,
            cancelled_at: None,
            failing_since: None,
            parked: None,
            ended: None,
            foreign: false,
            requests: BTreeSet::new(),
        }
    }

    /// The state after one more row of the journal.
    pub fn apply(&mut self, row: &JournalRow) {
        self.seq = row.seq;
        for event in &row.events {
            self.apply_event(event, row.at);
        }
    }

    /// The output that a step recorded.
    pub fn output(&self, step: &str) -> Option<&Json> {
        match &self.steps.get(step)?.forward {
            Forward::Succeeded { output, .. } => Some(output),
            _ => None,
        }
    }

    /// The first step, in row order, that was rejected, and why.
    pub fn rejection(&self) -> Option<(&str, &Rejection)> {
        self.steps
            .iter()
            .filter_map(|(name, step)| match &step.forward {
                Forward::Rejected { rejection, seq, .. } => Some((*seq, name.as_str(), rejection)),
                _ => None,
            })
            .min_by_key(|(seq, ..)| *seq)
            .map(|(_, name, rejection)| (name, rejection))
    }

    /// How many attempts at a step, or at its compensation, have failed.
    pub fn failed_attempts(&self, step: &str, undo: bool) -> u32 {
        match self.steps.get(step) {
            Some(StepState { forward: Forward::Pending(attempts), .. }) if !undo => attempts.failed,
            Some(StepState { undo: Undo::Pending(attempts), .. }) if undo => attempts.failed,
            _ => 0,
        }
    }

    fn apply_event(&mut self, event: &Event, at: DateTime<Utc>) {
        match event {
            Event::Succeeded { step, output } => {
                self.recoveries = 0;
                let seq = self.seq;
                self.step(step).forward = Forward::Succeeded { output: output.clone(), seq };
            }
            Event::Rejected { step, attempt, rejection } => {
                self.recoveries = 0;
                let (adopted_at, seq) = (self.adopted_at, self.seq);
                self.step(step).forward =
                    Forward::Rejected { rejection: rejection.clone(), attempt: *attempt, adopted_at, seq };
                self.failing_since.get_or_insert(seq);
            }
            Event::Failed { step, failure } => {
                self.recoveries = 0;
                let seq = self.seq;
                self.step(step).forward = match failure.retry_in {
                    Some(pause) => Forward::Pending(next(failure, pause, at)),
                    None => Forward::GaveUp { attempts: failure.attempt, seq },
                };
                if failure.retry_in.is_none() {
                    self.failing_since.get_or_insert(seq);
                }
            }
            Event::Compensated { step } => {
                self.recoveries = 0;
                self.step(step).undo = Undo::Done;
            }
            Event::CompensationFailed { step, failure } => {
                self.recoveries = 0;
                self.step(step).undo = match failure.retry_in {
                    Some(pause) => Undo::Pending(next(failure, pause, at)),
                    None => Undo::GaveUp { attempts: failure.attempt },
                };
            }
            Event::Adopted { .. } => {
                self.adopted_at = self.seq;
                self.recoveries += 1;
            }
            Event::Cancelled { id, .. } => {
                if self.requests.insert(*id) {
                    self.cancelled_at.get_or_insert(self.seq);
                    self.failing_since.get_or_insert(self.seq);
                    // Going on killed its workers; going back may not.
                    if matches!(self.parked, Some(ParkReason::CrashLoop { .. })) {
                        self.parked = None;
                        self.recoveries = 0;
                    }
                }
            }
            Event::Parked { reason } => self.parked = Some(reason.clone()),
            Event::Resumed { id, .. } => {
                if self.requests.insert(*id) {
                    self.resume();
                }
            }
            Event::Ended { outcome } => self.ended = Some(*outcome),
            Event::Unknown(_) => self.foreign = true,
        }
    }

    /// What is stuck gets a new round of attempts; their count goes on, so that none looks like a first one.
    fn resume(&mut self) {
        self.recoveries = 0;
        match self.parked.take() {
            Some(ParkReason::ForwardStuck { step } | ParkReason::InDoubt { step }) => {
                let step = self.step(&step);
                if let Forward::GaveUp { attempts, .. } | Forward::Rejected { attempt: attempts, .. } = step.forward {
                    step.forward = Forward::Pending(Attempts { failed: attempts, due: None });
                }
                if !self.is_failing() {
                    self.failing_since = None;
                }
            }
            Some(ParkReason::CompensationStuck { .. }) => {
                for step in self.steps.values_mut() {
                    if let Undo::GaveUp { attempts } = step.undo {
                        step.undo = Undo::Pending(Attempts { failed: attempts, due: None });
                    }
                }
            }
            Some(ParkReason::CrashLoop { .. }) | None => {}
        }
    }

    fn is_failing(&self) -> bool {
        let failed = |step: &StepState| matches!(step.forward, Forward::Rejected { .. } | Forward::GaveUp { .. });
        self.cancelled_at.is_some() || self.steps.values().any(failed)
    }

    fn step(&mut self, name: &str) -> &mut StepState {
        // Two look-ups instead of `entry`, which would allocate the name each time.
        if !self.steps.contains_key(name) {
            self.steps.insert(name.to_owned(), StepState::default());
        }
        self.steps.get_mut(name).expect("it was inserted above")
    }
}

/// No pause is longer: a century. A time beyond the calendar's end could not be computed.
const LONGEST_PAUSE: Duration = Duration::from_hours(100 * 365 * 24);

fn next(failure: &Failure, pause: Duration, at: DateTime<Utc>) -> Attempts {
    Attempts { failed: failure.attempt, due: Some(at + pause.min(LONGEST_PAUSE)) }
}
