//! What is written to the journal, and is the only truth about a saga.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{Json, JsonError, SagaId, WorkerId, sanitize};

/// Something that happened to a saga.
///
/// # Stability
/// The JSON form is stored for as long as the saga is. Variants and fields may be added, never changed; a worker
/// that reads an event it does not know leaves the saga to a newer one ([`Event::Unknown`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A step did its work.
    Succeeded {
        /// The step's name.
        step: String,
        /// What it returned; later steps and its compensation receive exactly this.
        output: Json,
    },
    /// A step decided that there is nothing to do.
    Skipped {
        /// The step's name.
        step: String,
        /// Which attempt decided so.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// A step said that it did not, and will not, happen.
    Rejected {
        /// The step's name.
        step: String,
        /// Which attempt was answered so. Only the first attempt's rejection can be definite.
        attempt: u32,
        /// Why.
        rejection: Rejection,
    },
    /// An attempt at a step ended without a verdict.
    Failed {
        /// The step's name.
        step: String,
        /// What happened, and what follows.
        failure: Failure,
    },
    /// A step, or its compensation, has begun and now waits: its message, or the saga that it starts, was written in the
    /// same transaction; a signal step only listens.
    Begun {
        /// The step's name.
        step: String,
        /// It is the compensation that has begun.
        #[serde(default, skip_serializing_if = "is_false")]
        undo: bool,
        /// Which attempt, counted from 1.
        attempt: u32,
        /// How long it is waited for; `None` is for ever.
        #[serde(with = "millis", default, skip_serializing_if = "Option::is_none")]
        within: Option<Duration>,
        /// The saga that it started, or that it undoes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child: Option<SagaId>,
    },
    /// The answer to a request came.
    Replied {
        /// Identifies the reply, so that its repetition changes nothing.
        id: Uuid,
        /// The step's name.
        step: String,
        /// It answers the compensation.
        #[serde(default, skip_serializing_if = "is_false")]
        undo: bool,
        /// Which attempt is answered.
        attempt: u32,
        /// What it says.
        answer: Answer,
    },
    /// Somebody sent a signal.
    Signalled {
        /// Identifies the signal, so that its repetition changes nothing.
        id: Uuid,
        /// The name of the step that waits for it, or will.
        step: String,
        /// What it says.
        payload: Json,
    },
    /// A signal could not be read; the step waits for another.
    SignalRefused {
        /// The step's name.
        step: String,
        /// Why.
        error: String,
    },
    /// A step that runs once for every item of a list knows how many there are.
    FannedOut {
        /// The step's name.
        step: String,
        /// How many items.
        items: u32,
    },
    /// It was found out whether a step happened.
    Probed {
        /// The step's name.
        step: String,
        /// What it returned, if it happened.
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        output: Option<Json>,
    },
    /// An attempt at finding out failed.
    ProbeFailed {
        /// The step's name.
        step: String,
        /// What happened, and what follows.
        failure: Failure,
    },
    /// A path was undone back to its savepoint; the other one is taken.
    Diverted {
        /// The step in which the path ends that was given up.
        step: String,
        /// The steps that failed on it.
        abandoned: Vec<String>,
    },
    /// The output of a step that an older version did not have was made of the others.
    Upcast {
        /// The step's name.
        step: String,
        /// What it would have returned.
        output: Json,
    },
    /// The saga's deadline has passed before its pivot: it is undone.
    DeadlinePassed,
    /// A step was undone.
    Compensated {
        /// The step's name.
        step: String,
    },
    /// An attempt at a compensation failed.
    CompensationFailed {
        /// The step's name.
        step: String,
        /// What happened, and what follows.
        failure: Failure,
    },
    /// Another worker took the saga over from one that had died.
    Adopted {
        /// The worker that took over.
        by: WorkerId,
    },
    /// Somebody asked for the saga to be undone.
    Cancelled {
        /// Identifies the request, so that its repetition changes nothing.
        id: Uuid,
        /// Why.
        reason: String,
        /// A completed saga is undone too: the saga that started it is.
        #[serde(default, skip_serializing_if = "is_false")]
        reopens: bool,
    },
    /// The saga cannot move without an operator.
    Parked {
        /// Why.
        reason: ParkReason,
        /// The same for all sagas that are stuck in the same way.
        #[serde(default)]
        fingerprint: Uuid,
    },
    /// An operator sent a parked saga on: what was stuck is tried again.
    Resumed {
        /// Identifies the request, so that its repetition changes nothing.
        id: Uuid,
        /// Who.
        by: String,
        /// Why.
        note: String,
    },
    /// An operator said what is to be taken for true of the step over which the saga is parked.
    Overruled {
        /// Identifies the request, so that its repetition changes nothing.
        id: Uuid,
        /// The step's name.
        step: String,
        /// The output that the operator supplied; without one the step, or its compensation, is skipped.
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        output: Option<Json>,
        /// Who.
        by: String,
        /// Why.
        note: String,
    },
    /// The saga came to its end.
    Ended {
        /// Which end.
        outcome: Outcome,
        /// What the saga returns, if another saga waits for it.
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        output: Option<Json>,
    },
    /// An event written by a newer version of this library.
    #[serde(skip)]
    Unknown(Json),
}

/// Why a step did not happen; part of the saga's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rejection {
    /// A short code that a program can match, such as `card_declined`.
    pub code: String,
    /// More for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// More for programs; see [`reject_with`](crate::reject_with).
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
}

impl Rejection {
    /// A rejection of that code.
    pub fn new(code: impl Into<String>) -> Self {
        Self { code: sanitize(&code.into()), message: String::new(), details: None }
    }

    /// The details, as the type that [`reject_with`](crate::reject_with) was given.
    ///
    /// # Errors
    /// Returns [`JsonError`] if there are none of this type.
    pub fn details<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
        self.details.as_ref().unwrap_or(&Json::null()).decode()
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was done; this is the step's output.
    Done(Json),
    /// It was not done, and will not be.
    Rejected(Rejection),
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// How it failed.
    pub cause: Cause,
    /// The error text, sanitised.
    pub error: String,
    /// The pause before the next attempt; `None` if this was the last. It is recorded, not computed again from
    /// the policy, so that the history means the same after the policy has changed.
    #[serde(with = "millis", default, skip_serializing_if = "Option::is_none")]
    pub retry_in: Option<Duration>,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The body returned an error.
    Error,
    /// It took longer than its timeout.
    Timeout,
    /// The body panicked.
    Panic,
    /// What it needs or returned cannot be read or stored; trying again cannot help.
    Data,
}

/// How a saga ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Every step succeeded.
    Completed,
    /// Everything that may have happened was undone.
    Compensated,
}

/// Why a saga waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ParkReason {
    /// A step after the pivot was rejected or gave up; there is no way back and no way on.
    ForwardStuck {
        /// The step's name.
        step: String,
    },
    /// A compensation gave up.
    CompensationStuck {
        /// The name of the step that it should undo.
        step: String,
    },
    /// Nobody can say whether the step happened, and it cannot be undone without knowing.
    InDoubt {
        /// The step's name.
        step: String,
    },
    /// Its workers died again and again.
    CrashLoop {
        /// How many times in a row.
        recoveries: u32,
    },
    /// Nothing could be made up for a step that is newer than the saga, and that it is past.
    UpcastStuck {
        /// The step's name.
        step: String,
        /// Why.
        error: String,
    },
}

impl ParkReason {
    /// What kind of reason it is, for people and for grouping.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ForwardStuck { .. } => "forward_stuck",
            Self::CompensationStuck { .. } => "compensation_stuck",
            Self::InDoubt { .. } => "in_doubt",
            Self::CrashLoop { .. } => "crash_loop",
            Self::UpcastStuck { .. } => "upcast_stuck",
        }
    }

    /// The step that is stuck; a crash loop has none.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::ForwardStuck { step }
            | Self::CompensationStuck { step }
            | Self::InDoubt { step }
            | Self::UpcastStuck { step, .. } => Some(step),
            Self::CrashLoop { .. } => None,
        }
    }

    /// The same for all sagas that are stuck at the same step in the same way: numbers in the error do not count.
    pub fn fingerprint(&self, saga: &str, error: &str) -> Uuid {
        const NAMESPACE: Uuid = Uuid::from_u128(0x616d_656e_6473_4000_8000_7061_726b_6564);
        let step = self.step().map_or("", |step| step.split('[').next().unwrap_or(step));
        let error: String = error.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
        Uuid::new_v5(&NAMESPACE, format!("{saga}\0{}\0{step}\0{error}", self.kind()).as_bytes())
    }
}

/// One append to a saga's journal: the events that became true together.
///
/// Its primary key is `(saga, seq)`: whoever writes `seq` first owns the truth, and everyone else reloads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JournalRow {
    /// The saga.
    pub saga: SagaId,
    /// Counts the saga's appends from 1, without gaps.
    pub seq: i64,
    /// What became true.
    pub events: Vec<Event>,
    /// When, by the clock of the database.
    pub at: DateTime<Utc>,
}

/// Reads a journal row's events; one that this version does not know becomes [`Event::Unknown`].
///
/// # Errors
/// Returns an error if the text is not a JSON list.
pub fn parse_events(text: &str) -> Result<Vec<Event>, serde_json::Error> {
    let raw: Vec<Box<RawValue>> = serde_json::from_str(text)?;
    raw.into_iter()
        .map(|event| match serde_json::from_str(event.get()) {
            Ok(event) => Ok(event),
            Err(_) => Json::deserialize(&mut serde_json::Deserializer::from_str(event.get())).map(Event::Unknown),
        })
        .collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A `null` that is there is a value: what a step returns that returns nothing.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(d).map(Some)
}

mod millis {
    use super::{Deserialize, Deserializer, Duration};
    use serde::Serializer;

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(pause) => s.serialize_u64(pause.as_millis() as u64),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(d)?.map(Duration::from_millis))
    }
}
