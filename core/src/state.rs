//! Where a saga stands: the fold of its journal, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::event::{Answer, JournalRow, Outcome, ParkReason, Rejection};
use crate::machine::Phase;
use crate::{Json, SagaId};

mod fold;
mod outside;

/// The state of a saga after some prefix of its journal.
///
/// It knows no clock: every time in it was written by the database with the row that it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// What the saga was started with.
    pub input: Json,
    /// The version of the definition that it was started under.
    pub version: u32,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// The sequence number of the last row folded in; 0 before the first.
    pub seq: i64,
    /// What is recorded of each step, by name. A step without a record has not been heard of.
    pub steps: BTreeMap<String, StepState>,
    /// What is recorded of the items of each step that runs once for every item of a list.
    pub fans: BTreeMap<String, Fan>,
    /// The paths that were given up for their alternates, by the step in which they end, with the row that says so
    /// and its time.
    pub diverted: BTreeMap<String, (i64, DateTime<Utc>)>,
    /// Signals that came before their step waited for them, in order.
    pub signals: BTreeMap<String, VecDeque<Json>>,
    /// The row of the last adoption; 0 if there was none.
    pub adopted_at: i64,
    /// Adoptions in a row without any progress between them.
    pub recoveries: u32,
    /// The row of the first cancellation, or of the deadline that passed.
    pub cancelled_at: Option<i64>,
    /// Why it was cancelled.
    pub cancel_reason: Option<String>,
    /// The row in which the saga began to fail, and its time: by a rejection, by attempts used up, or by a cancellation. An
    /// operator who sends on the last such step ends it, and so does an alternate that is taken; while another is left,
    /// the saga has been failing all the time.
    pub failing_since: Option<(i64, DateTime<Utc>)>,
    /// The last row that ended its failing, and what `failing_since` was until then.
    pub forgiven: Option<(i64, (i64, DateTime<Utc>))>,
    /// The recorded names of the steps that made it fail and that nobody has sent on, nor replaced by an alternate.
    /// With the row in which each failed, and its time.
    pub failed: BTreeMap<String, (i64, DateTime<Utc>)>,
    /// Of such steps, those that were sent on or found out while others were left: since when each had failed, and the
    /// row that sent it on.
    pub sent_on: Vec<(String, (i64, DateTime<Utc>), i64)>,
    /// Set while the saga waits for an operator.
    pub parked: Option<Parked>,
    /// Set once the saga has come to its end.
    pub ended: Option<Outcome>,
    /// What the saga returned, if another saga waits for it.
    pub output: Option<Json>,
    /// A newer version wrote something that this one does not understand.
    pub foreign: bool,
    /// Requests from outside that have been taken; a repetition changes nothing.
    pub requests: BTreeSet<Uuid>,
}

/// Why a saga waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parked {
    /// Why.
    pub reason: ParkReason,
    /// The same for all sagas that are stuck in the same way.
    pub fingerprint: Uuid,
    /// Since when.
    pub at: DateTime<Utc>,
}

/// The items of a step that runs once for every item of a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fan {
    /// The row that says how many there are.
    pub seq: i64,
    /// Its time.
    pub at: DateTime<Utc>,
    /// How each item stands.
    pub items: Vec<StepState>,
}

/// What is recorded of one step, or of one item of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct StepState {
    /// How its forward action stands.
    pub forward: Forward,
    /// How its compensation stands.
    pub undo: Undo,
    /// How finding out whether it happened stands.
    pub probe: Undo,
    /// The saga that it started.
    pub child: Option<SagaId>,
    /// The text of its last error.
    pub error: Option<String>,
    /// The row in which it was first done, and its time: what comes after it may have begun then, whatever was found out
    /// later.
    pub done: Option<(i64, DateTime<Utc>)>,
}

/// How a step's forward action stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Forward {
    /// No verdict yet.
    Pending(Attempts),
    /// It has begun and waits for an answer from outside.
    Waiting(Waiting),
    /// It happened.
    Succeeded {
        /// What it returned.
        output: Json,
        /// The row that recorded it.
        seq: i64,
        /// Its time.
        at: DateTime<Utc>,
        /// It did not happen: its output was made up for a saga that is older than the step.
        made_up: bool,
    },
    /// It decided that there is nothing to do, or an operator did (attempt 0).
    Skipped {
        /// Which attempt decided so.
        attempt: u32,
        /// The row of the last adoption before it.
        adopted_at: i64,
        /// The row that recorded it.
        seq: i64,
        /// Its time.
        at: DateTime<Utc>,
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
    /// It was found out, or decided by an operator, that it did not happen.
    Absent {
        /// The row that recorded it.
        seq: i64,
    },
}

/// How a compensation, or finding out about a step, stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Undo {
    /// Not done.
    Pending(Attempts),
    /// It has begun and waits for an answer from outside.
    Waiting(Waiting),
    /// Done.
    Done,
    /// Its attempts are used up.
    GaveUp {
        /// How many there were.
        attempts: u32,
    },
}

/// Attempts that failed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Attempts {
    /// How many.
    pub failed: u32,
    /// The next one is not due before this.
    pub due: Option<DateTime<Utc>>,
    /// When the first of them failed.
    pub since: Option<DateTime<Utc>>,
}

/// What waits for an answer from outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// Which attempt it is.
    pub attempt: u32,
    /// The row in which it began.
    pub seq: i64,
    /// How long it is waited for; `None` is for ever.
    pub until: Option<DateTime<Utc>>,
    /// When an earlier attempt failed first.
    pub since: Option<DateTime<Utc>>,
    /// The saga that is waited for.
    pub child: Option<SagaId>,
    /// The answer, once it has come.
    pub answer: Option<Answer>,
}

impl StepState {
    /// The attempts at one of its actions that have failed so far.
    pub(crate) fn attempts(&self, phase: Phase) -> Attempts {
        match (phase, &self.forward, &self.undo, &self.probe) {
            (Phase::Forward, Forward::Pending(attempts), ..)
            | (Phase::Undo, _, Undo::Pending(attempts), _)
            | (Phase::Probe, .., Undo::Pending(attempts)) => *attempts,
            _ => Attempts::default(),
        }
    }
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
    pub fn new(input: Json, version: u32, started_at: DateTime<Utc>) -> Self {
        Self {
            input,
            version,
            started_at,
            seq: 0,
            steps: BTreeMap::new(),
            fans: BTreeMap::new(),
            diverted: BTreeMap::new(),
            signals: BTreeMap::new(),
            adopted_at: 0,
            recoveries: 0,
            cancelled_at: None,
            cancel_reason: None,
            failing_since: None,
            forgiven: None,
            failed: BTreeMap::new(),
            sent_on: Vec::new(),
            parked: None,
            ended: None,
            output: None,
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

    /// What is recorded of a step, or of one item of it.
    pub fn record(&self, step: &str, item: Option<u32>) -> Option<&StepState> {
        match item {
            None => self.steps.get(step),
            Some(item) => self.fans.get(step)?.items.get(item as usize),
        }
    }

    /// The output that a step, or one item of it, recorded.
    pub fn output(&self, step: &str, item: Option<u32>) -> Option<&Json> {
        match &self.record(step, item)?.forward {
            Forward::Succeeded { output, .. } => Some(output),
            _ => None,
        }
    }

    /// The first step, in row order, that was rejected, and why.
    pub fn rejection(&self) -> Option<(&str, &Rejection)> {
        let rejected = self.failed.keys().filter_map(|name| match &self.named(name)?.forward {
            Forward::Rejected { rejection, seq, .. } => Some((*seq, name.as_str(), rejection)),
            _ => None,
        });
        rejected.min_by_key(|(seq, ..)| *seq).map(|(_, name, rejection)| (name, rejection))
    }

    /// The first step, in row order, whose attempts were used up, and its last error.
    pub fn gave_up(&self) -> Option<(&str, Option<&str>)> {
        let gave_up = self.failed.keys().filter_map(|name| match self.named(name)? {
            StepState { forward: Forward::GaveUp { seq, .. }, error, .. } => {
                Some((*seq, name.as_str(), error.as_deref()))
            }
            _ => None,
        });
        gave_up.min_by_key(|(seq, ..)| *seq).map(|(_, name, error)| (name, error))
    }

    /// The record of that name, which may be an item's.
    pub(crate) fn named(&self, name: &str) -> Option<&StepState> {
        let (step, item) = split_name(name);
        self.record(step, item).or_else(|| self.steps.get(name))
    }
}

/// The name under which an item of a step is recorded: `reserve[3]`.
pub(crate) fn item_name(step: &str, item: Option<u32>) -> String {
    item.map_or_else(|| step.to_owned(), |item| format!("{step}[{item}]"))
}

/// The step and the item that a recorded name means.
pub(crate) fn split_name(name: &str) -> (&str, Option<u32>) {
    let parts = name.strip_suffix(']').and_then(|name| name.split_once('['));
    parts.and_then(|(step, item)| Some((step, Some(item.parse().ok()?)))).unwrap_or((name, None))
}
