//! What an attempt that has come to an end means for its step: the event to record.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::definition::Step;
use crate::event::{Cause, Event, Failure};
use crate::machine::Phase;
use crate::retry::LONGEST_PAUSE;
use crate::{Json, RetryPolicy, StepError, sanitize};

/// How the body of an attempt ended; a probe's may end with nothing.
pub(crate) type Ended = Result<Option<Json>, Problem>;

pub(crate) enum Problem {
    Body(StepError),
    Timeout(Duration),
    Panic(String),
}

impl Problem {
    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Body(error) => error.to_string(),
            Self::Timeout(limit) => format!("no answer within {limit:?}"),
            Self::Panic(text) => text.clone(),
        }
    }
}

/// An attempt at an action of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tried<'a> {
    pub(crate) step: &'a Step,
    pub(crate) phase: Phase,
    /// Which attempt, counted from 1.
    pub(crate) attempt: u32,
    /// When an earlier one failed first.
    pub(crate) since: Option<DateTime<Utc>>,
}

impl Tried<'_> {
    /// The event to record under this name, and a label for the metrics.
    pub(crate) fn event(&self, name: String, ended: Ended, now: DateTime<Utc>) -> (Event, &'static str) {
        let problem = match ended {
            Ok(output) if self.phase == Phase::Probe => return (Event::Probed { step: name, output }, "ok"),
            Ok(_) if self.phase == Phase::Undo => return (Event::Compensated { step: name }, "ok"),
            Ok(output) => {
                return (Event::Succeeded { step: name, output: output.unwrap_or_else(Json::null) }, "ok");
            }
            Err(problem) => problem,
        };
        let (cause, error, label) = match problem {
            Problem::Body(StepError::Reject(mut rejection)) if self.phase == Phase::Forward => {
                tracing::info!(code = rejection.code, "rejected");
                rejection.code = sanitize(&rejection.code);
                rejection.message = sanitize(&rejection.message);
                return (Event::Rejected { step: name, attempt: self.attempt, rejection }, "rejected");
            }
            Problem::Body(StepError::Skip(reason)) if self.phase == Phase::Forward && self.step.skippable => {
                let reason = sanitize(&reason);
                tracing::info!(reason, "skipped");
                return (Event::Skipped { step: name, attempt: self.attempt, reason }, "skipped");
            }
            Problem::Body(StepError::Skip(reason)) => (
                Cause::Data,
                format!("it skipped itself ({reason}), but only a step that says `skippable` may"),
                "data",
            ),
            Problem::Body(error @ (StepError::Data(_) | StepError::Unpublishable(_))) => {
                (Cause::Data, error.to_string(), "data")
            }
            Problem::Body(error) => (Cause::Error, error.to_string(), "error"),
            Problem::Timeout(limit) => (Cause::Timeout, format!("no answer within {limit:?}"), "timeout"),
            Problem::Panic(text) => (Cause::Panic, text, "panic"),
        };
        (self.failed(name, cause, &error, now), label)
    }

    /// A failed attempt, with the pause that the step's policy gives it.
    pub(crate) fn failed(&self, name: String, cause: Cause, error: &str, now: DateTime<Utc>) -> Event {
        let failure = self.failure(cause, error, now);
        tracing::warn!(step = name, error = failure.error, retry_in = ?failure.retry_in, "attempt failed");
        match self.phase {
            Phase::Forward => Event::Failed { step: name, failure },
            Phase::Undo => Event::CompensationFailed { step: name, failure },
            Phase::Probe => Event::ProbeFailed { step: name, failure },
        }
    }

    fn failure(&self, cause: Cause, error: &str, now: DateTime<Utc>) -> Failure {
        let policy = match self.phase {
            Phase::Forward => Some(self.step.retry),
            Phase::Undo => self.step.compensation.as_ref().map(|undo| undo.retry),
            Phase::Probe => self.step.probe.as_ref().map(|probe| probe.retry),
        };
        let policy = policy.unwrap_or(self.step.retry);
        let policy = RetryPolicy { longest: policy.longest.min(LONGEST_PAUSE), ..policy };
        let spent = self.since.map_or(Duration::ZERO, |since| (now - since).to_std().unwrap_or_default());
        let retry_in = match cause {
            Cause::Data => None,
            _ => policy.pause_after(self.attempt, spent, fastrand::f64()),
        };
        // In whole milliseconds, as it is recorded.
        let retry_in = retry_in.map(|pause| Duration::from_millis(pause.as_millis() as u64));
        Failure { attempt: self.attempt, cause, error: sanitize(error), retry_in }
    }
}
