//! A journal in words, for golden tests.

use std::fmt::Write;

use crate::event::{Answer, Event, Failure};

/// A line for what happened; `None` for what only a store cares about.
pub(super) fn line(event: &Event) -> Option<String> {
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = match event {
        Event::Succeeded { step, output } => write!(line, "{step}: {output:?}"),
        Event::Skipped { step, reason, .. } => write!(line, "{step}: skipped, {reason}"),
        Event::Rejected { step, rejection, .. } => write!(line, "{step}: rejected, {}", rejection.code),
        Event::Failed { step, failure } => write!(line, "{step}: failed, {}", of(failure)),
        Event::Begun { step, undo, .. } => write!(line, "{step}: {}begun", if *undo { "undo " } else { "" }),
        Event::Replied { step, answer: Answer::Done(_), .. } => write!(line, "{step}: answered"),
        Event::Replied { step, answer: Answer::Rejected(rejection), .. } => {
            write!(line, "{step}: answered no, {}", rejection.code)
        }
        Event::Signalled { step, payload, .. } => write!(line, "{step}: signalled {payload:?}"),
        Event::SignalRefused { step, error } => write!(line, "{step}: signal refused, {error}"),
        Event::FannedOut { step, items } => write!(line, "{step}: {items} items"),
        Event::Probed { step, output: Some(output) } => write!(line, "{step}: it happened, {output:?}"),
        Event::Probed { step, output: None } => write!(line, "{step}: it did not happen"),
        Event::ProbeFailed { step, failure } => write!(line, "{step}: nobody knows, {}", of(failure)),
        Event::Diverted { step, .. } => write!(line, "{step}: given up for its alternate"),
        Event::Upcast { step, output } => write!(line, "{step}: made up, {output:?}"),
        Event::DeadlinePassed => write!(line, "the deadline passed"),
        Event::Compensated { step } => write!(line, "{step}: undone"),
        Event::CompensationFailed { step, failure } => write!(line, "{step}: not undone, {}", of(failure)),
        Event::Adopted { .. } => write!(line, "another worker took over"),
        Event::Cancelled { reason, .. } => write!(line, "cancelled, {reason}"),
        Event::Parked { reason, .. } => match reason.step() {
            Some(step) => write!(line, "parked, {} at {step}", reason.kind()),
            None => write!(line, "parked, {}", reason.kind()),
        },
        Event::Ended { outcome, .. } => write!(line, "{}", format!("{outcome:?}").to_lowercase()),
        _ => return None,
    };
    Some(line)
}

fn of(failure: &Failure) -> String {
    let last = if failure.retry_in.is_none() { " for the last time" } else { "" };
    format!("attempt {}{last}: {}", failure.attempt, failure.error)
}
