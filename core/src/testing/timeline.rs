//! A schedule in words.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::TimeDelta;

use super::Environment;
use super::moves::{Effect, How};
use super::simulation::Flight;
use super::stage::Stage;
use crate::Answer;
use crate::event::Event;
use crate::machine::{Node, Phase};
use crate::state::item_name;
use crate::worker::failure::{Ended, Problem};

/// What has happened so far, if somebody wants to read it.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Option<Box<Lines>>);

#[derive(Debug, Clone, Default)]
struct Lines {
    told: Vec<String>,
    ran: BTreeSet<(usize, usize, Option<u32>, u8)>,
    hints: Vec<String>,
}

const AGAIN: &str = "after a crash or a lost answer a step runs again under the same `call.idempotency_key()`: its effect \
    must happen once for that key";
const UNDONE_AGAIN: &str =
    "a compensation may run more than once under the same key: the second time it must find nothing to do";
const UNDONE_BLIND: &str = "a compensation may run although its step never took effect: it must undo only what is there, found \
    by `call.step_key()`";
const UNDONE: &str = "a compensation may run on another worker than its step: it knows what is recorded, and what it finds by \
    `call.step_key()`";
const TOO_LATE: &str = "a request may arrive after it was undone: the compensation must leave a mark under `call.step_key()` \
    that makes the late request do nothing";
const ROLLED_BACK: &str =
    "a transaction that does not commit must leave nothing: what it publishes goes through `tx.publish`";
const PARALLEL: &str = "parallel branches run, and are undone, in any order";

impl Log {
    pub(super) fn reading() -> Self {
        Self(Some(Box::default()))
    }

    pub(super) fn is_read(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn line(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.0 {
            log.told.push(line());
        }
    }

    /// A body has run, with so many others of the same saga under way.
    pub(super) fn ran<E: Environment>(
        &mut self,
        (saga, kind, others): (usize, usize, usize),
        flight: &Flight,
        stage: &Stage<E>,
        ended: &Ended,
    ) {
        let Some(log) = &mut self.0 else { return };
        let Node { step, item } = flight.attempt.node;
        let was = |log: &Lines, phase: Phase| log.ran.contains(&(saga, step, item, phase as u8));
        let again = was(log, flight.phase);
        let title = title(stage, kind, flight);
        let hint = match flight.phase {
            Phase::Forward if was(log, Phase::Undo) => Some(TOO_LATE.to_owned()),
            Phase::Forward if again => Some(AGAIN.to_owned()),
            Phase::Forward => {
                let it = &stage.kinds[kind].definition.steps[step];
                let is_left = !it.pivot && it.compensation.is_none() && ended.is_ok();
                is_left.then(|| format!("{title} has run, and nothing undoes it"))
            }
            Phase::Undo if again => Some(UNDONE_AGAIN.to_owned()),
            Phase::Undo if !was(log, Phase::Forward) => Some(UNDONE_BLIND.to_owned()),
            Phase::Undo if others > 0 => Some(PARALLEL.to_owned()),
            Phase::Undo => Some(UNDONE.to_owned()),
            Phase::Probe => None,
        };
        if let Some(hint) = hint {
            log.hint(hint);
        }
        log.ran.insert((saga, step, item, flight.phase as u8));
        let again = if again { " again" } else { "" };
        log.told.push(format!("{title} runs{again}: {}", verdict(ended)));
    }

    /// An attempt did not go as its body says.
    pub(super) fn fault<E: Environment>(&mut self, kind: usize, flight: &Flight, stage: &Stage<E>, how: How) {
        let Some(log) = &mut self.0 else { return };
        let what = match how {
            How::Reject => "is refused",
            How::Fail => "fails without any effect, and is tried again",
            How::FailAfter => "took effect, but the answer is lost",
            How::TimeOut(Effect::Absent) => "times out for good; it never took effect",
            How::TimeOut(Effect::Present) => "times out for good; it took effect",
            How::TimeOut(Effect::Late) => "times out for good; its request is still on its way",
            How::GiveUp => "fails for the last time",
            How::AsIs | How::Twice | How::DieBeforeCommit => return,
        };
        log.told.push(format!("{} {what}", title(stage, kind, flight)));
    }

    pub(super) fn rolled_back(&mut self) {
        if let Some(log) = &mut self.0 {
            log.hint(ROLLED_BACK.to_owned());
        }
    }

    pub(super) fn written(&mut self, saga: usize, events: &[Event]) {
        let Some(log) = &mut self.0 else { return };
        for event in events {
            let line = match event {
                Event::Ended { outcome, .. } => format!("the saga is {outcome:?}").to_lowercase(),
                Event::Parked { reason, .. } => format!("the saga is parked: {}", reason.kind()),
                Event::DeadlinePassed => "its deadline passes".to_owned(),
                Event::Diverted { step, .. } => format!("`{step}` is given up for its alternate"),
                Event::Cancelled { .. } => "the saga that a step started is to be undone".to_owned(),
                _ => continue,
            };
            log.told.push(if saga == 0 { line } else { format!("{line} (child {saga})") });
        }
    }

    /// The lines, and what may help.
    pub(super) fn into_parts(self) -> (Vec<String>, Vec<String>) {
        let Some(mut log) = self.0 else { return Default::default() };
        // It is true of every compensation, and worth saying only where there is nothing more.
        if log.hints.len() > 1 {
            log.hints.retain(|hint| hint != UNDONE);
        }
        (log.told, log.hints)
    }
}

impl Lines {
    fn hint(&mut self, hint: String) {
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
    }
}

/// A step, its compensation or its probe, as it is called in the code.
pub(super) fn title<E: Environment>(stage: &Stage<E>, kind: usize, flight: &Flight) -> String {
    let step = &stage.kinds[kind].definition.steps[flight.attempt.node.step];
    let name = item_name(&step.name, flight.attempt.node.item);
    match (flight.phase, &step.compensation, &step.probe) {
        (Phase::Undo, Some(undo), _) => format!("`{}` (undoes `{name}`)", undo.name),
        (Phase::Probe, _, Some(probe)) => format!("`{}` (finds out about `{name}`)", probe.name),
        _ => format!("`{name}`"),
    }
}

fn verdict(ended: &Ended) -> String {
    match ended {
        Ok(Some(output)) if output.as_str() == "null" => "Ok".to_owned(),
        ended => shortened(&outcome(ended)),
    }
}

/// How a body ended, in full.
pub(super) fn outcome(ended: &Ended) -> String {
    match ended {
        Ok(Some(output)) => format!("Ok {output:?}"),
        Ok(None) => "it did not happen".to_owned(),
        Err(Problem::Body(error)) => format!("{error}"),
        Err(Problem::Panic(text)) => text.clone(),
        Err(Problem::Timeout(limit)) => format!("no end within {limit:?}"),
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    if text.chars().count() <= MOST { text.to_owned() } else { text.chars().take(MOST).chain(['…']).collect() }
}

pub(super) fn answer(answer: Option<&Answer>) -> String {
    match answer {
        Some(Answer::Done(output)) => format!("Ok {}", shortened(output.as_str())),
        Some(Answer::Rejected(rejection)) => format!("rejected, {}", rejection.code),
        None => "no answer".to_owned(),
    }
}

pub(super) fn pause(time: TimeDelta) -> String {
    format!("{:?}", time.to_std().unwrap_or(Duration::ZERO))
}
