//! What is written to the journal, and is the only truth about a saga.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{Json, SagaId, WorkerId};

/// Something that happened to a saga.
///
/// # Stability
/// The JSON form is stored for as long as the saga is. Variants and fields may be added, never changed; a worker
/// that reads an event it does not know leaves the saga to a newer one ([`Event::Unknown`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    },
    /// The saga cannot move without an operator.
    Parked {
        /// Why.
        reason: ParkReason,
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
    /// The saga came to its end.
    Ended {
        /// Which end.
        outcome: Outcome,
    },
    /// An event written by a newer version of this library.
    #[serde(skip)]
    Unknown(Json),
}

/// Why a step did not happen; part of the saga's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// A short code that a program can match, such as `card_declined`.
    pub code: String,
    /// More for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// One append to a saga's journal: the events that became true together.
///
/// Its primary key is `(saga, seq)`: whoever writes `seq` first owns the truth, and everyone else reloads.
#[derive(Debug, Clone, PartialEq, Eq)]
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
