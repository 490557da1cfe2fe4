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
    lines: Vec<String>,
    ran: BTreeSet<(usize, usize, Option<u32>, u8)>,
    hints: BTreeSet<&'static str>,
}

const AGAIN: &str = "after a crash or a lost answer a step runs again under the same `call.idempotency_key()`: its effect must \
    happen once for that key";
const UNDONE_AGAIN: &str =
    "a compensation may run more than once under the same key: the second time it must find nothing to do";
const UNDONE_BLIND: &str = "a compensation may run although its step never took effect: it must undo only what is there, found \
    by `call.step_key()`";
const TOO_LATE: &str = "a request may arrive after it was undone: the compensation must leave a mark under `call.step_key()` \
    that makes the late request do nothing";
const ROLLED_BACK: &str =
    "a transaction that does not commit must leave nothing: what it publishes goes through `tx.publish`";
const REJECTED: &str = "a step may be refused at any time: everything before it is undone, and nothing else";

impl Log {
    pub(super) fn reading() -> Self {
        Self(Some(Box::default()))
    }

    pub(super) fn line(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.0 {
            log.lines.push(line());
        }
    }

    /// A body has run.
    pub(super) fn ran<E: Environment>(
        &mut self,
        (saga, kind): (usize, usize),
        flight: &Flight,
        stage: &Stage<E>,
        ended: &Ended,
    ) {
        let Some(log) = &mut self.0 else { return };
        let Node { step, item } = flight.attempt.node;
        let mut key = (saga, step, item, flight.phase as u8);
        let again = !log.ran.insert(key);
        key.3 = Phase::Forward as u8;
        let (forward, undo) = (flight.phase == Phase::Forward, flight.phase == Phase::Undo);
        let was_undone = forward && log.ran.contains(&(saga, step, item, Phase::Undo as u8));
        let hint = match () {
            () if was_undone => Some(TOO_LATE),
            () if undo && again => Some(UNDONE_AGAIN),
            () if undo && !log.ran.contains(&key) => Some(UNDONE_BLIND),
            () if forward && again => Some(AGAIN),
            () => None,
        };
        log.hints.extend(hint);
        let again = if again { " again" } else { "" };
        log.lines.push(format!("{} runs{again}: {}", title(stage, kind, flight), verdict(ended)));
    }

    /// An attempt did not go as its body says.
    pub(super) fn fault<E: Environment>(&mut self, kind: usize, flight: &Flight, stage: &Stage<E>, how: How) {
        let Some(log) = &mut self.0 else { return };
        let what = match how {
            How::Reject => {
                log.hints.insert(REJECTED);
                "is refused"
            }
            How::Fail => "fails without any effect, and is tried again",
            How::FailAfter => "took effect, but the answer is lost",
            How::TimeOut(Effect::Absent) => "times out for good; it never took effect",
            How::TimeOut(Effect::Present) => "times out for good; it took effect",
            How::TimeOut(Effect::Late) => "times out for good; its request is still on its way",
            How::GiveUp => "fails for the last time",
            How::AsIs | How::Twice | How::DieBeforeCommit => return,
        };
        log.lines.push(format!("{} {what}", title(stage, kind, flight)));
    }

    pub(super) fn rolled_back(&mut self) {
        if let Some(log) = &mut self.0 {
            log.hints.insert(ROLLED_BACK);
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
            log.lines.push(if saga == 0 { line } else { format!("{line} (child {saga})") });
        }
    }

    /// The lines, and what may help.
    pub(super) fn into_parts(self) -> (Vec<String>, Vec<&'static str>) {
        self.0.map(|log| (log.lines, log.hints.into_iter().collect())).unwrap_or_default()
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
        Ok(Some(output)) => format!("Ok {}", shortened(output.as_str())),
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
