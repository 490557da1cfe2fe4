//! What each event from outside does to the state: requests, answers, decisions of operators.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Attempts, Forward, Parked, State, Undo};
use crate::Json;
use crate::event::{Answer, Event, Outcome, ParkReason};

impl State {
    /// What was asked for, or answered, by somebody other than the worker; its repetition changes nothing.
    pub(super) fn apply_from_outside(&mut self, event: &Event, at: DateTime<Utc>) {
        if event.request().is_some_and(|id| !self.requests.insert(id)) {
            return;
        }
        match event {
            Event::DeadlinePassed => self.cancel("the deadline has passed", at),
            Event::Cancelled { reason, reopens, .. } => {
                if *reopens && self.ended == Some(Outcome::Completed) {
                    self.ended = None;
                }
                self.cancel(reason, at);
            }
            Event::Resumed { .. } => self.resume(),
            Event::Overruled { step, output, .. } => self.overrule(step, output.as_ref(), at),
            Event::Replied { step, undo, attempt, answer, .. } if self.ended.is_none() => {
                self.reply(step, *undo, *attempt, answer, at);
            }
            Event::Signalled { step, payload, .. } if self.ended.is_none() => {
                self.signals.entry(step.clone()).or_default().push_back(payload.clone());
                self.hand_over_signal(step);
            }
            _ => {}
        }
    }

    /// A late answer settles what was unknown; it changes nothing that is known.
    fn reply(&mut self, step: &str, undo: bool, attempt: u32, answer: &Answer, at: DateTime<Utc>) {
        let seq = self.seq;
        let record = self.step(step);
        if undo {
            match &mut record.undo {
                Undo::Waiting(waiting) => _ = waiting.answer.get_or_insert_with(|| answer.clone()),
                Undo::Pending(_) | Undo::GaveUp { .. } if matches!(answer, Answer::Done(_)) => {
                    record.undo = Undo::Done;
                    self.unpark(step);
                }
                _ => {}
            }
            return;
        }
        match &mut record.forward {
            // The answer to an earlier attempt says *done* for all of them, but *no* only for itself.
            Forward::Waiting(waiting) if waiting.attempt == attempt || matches!(answer, Answer::Done(_)) => {
                waiting.answer.get_or_insert_with(|| answer.clone());
            }
            Forward::Pending(_) | Forward::GaveUp { .. } => match answer {
                Answer::Done(output) => {
                    record.be_done(Forward::Succeeded { output: output.clone(), seq, at, made_up: false }, seq, at);
                    self.unpark(step);
                }
                Answer::Rejected(rejection) => {
                    let is_last = matches!(record.forward, Forward::GaveUp { attempts, .. } if attempts == attempt);
                    // On a path that was given up nobody needs to know any more.
                    if is_last && self.failed.contains_key(step) {
                        self.reject(step, attempt, rejection, at);
                        self.unpark(step);
                    }
                }
            },
            _ => {}
        }
    }

    /// What the saga was parked over has been settled.
    fn unpark(&mut self, step: &str) {
        if self.parked.as_ref().is_some_and(|parked| parked.reason.step() == Some(step)) {
            let is_forward = matches!(
                self.parked.take(),
                Some(Parked { reason: ParkReason::ForwardStuck { .. } | ParkReason::InDoubt { .. }, .. })
            );
            self.recoveries = 0;
            if is_forward && !self.step(step).forward.has_failed() {
                // It waited for this before it undid anything.
                self.forgive(step);
            }
        }
    }

    /// What is stuck gets a new round of attempts; their count goes on, so that none looks like a first one.
    fn resume(&mut self) {
        self.recoveries = 0;
        match self.parked.take().map(|parked| parked.reason) {
            Some(ParkReason::ForwardStuck { step: name } | ParkReason::InDoubt { step: name }) => {
                let step = self.step(&name);
                if let Forward::GaveUp { attempts, .. }
                | Forward::Rejected { attempt: attempts, .. }
                | Forward::Skipped { attempt: attempts, .. } = step.forward
                {
                    step.forward = Forward::Pending(again(attempts));
                } else if let Forward::Absent { .. } = step.forward {
                    // There were attempts at it, so that the next one's answer is not the answer to the first.
                    step.forward = Forward::Pending(again(1));
                    step.probe = Undo::default();
                }
                if let Undo::GaveUp { attempts } = step.probe {
                    step.probe = Undo::Pending(again(attempts));
                }
                self.forgive(&name);
            }
            Some(ParkReason::CompensationStuck { .. }) => {
                let items = self.fans.values_mut().flat_map(|fan| &mut fan.items);
                for step in self.steps.values_mut().chain(items) {
                    if let Undo::GaveUp { attempts } = step.undo {
                        step.undo = Undo::Pending(again(attempts));
                    }
                }
            }
            // What could not be made up has no record, and so it is made up once more.
            Some(ParkReason::CrashLoop { .. } | ParkReason::UpcastStuck { .. }) | None => {}
        }
    }

    /// What an operator says is taken for true, of the step over which the saga is parked and of no other.
    fn overrule(&mut self, step: &str, output: Option<&Json>, at: DateTime<Utc>) {
        let seq = self.seq;
        let Some(reason) = self.parked.as_ref().map(|parked| parked.reason.clone()) else { return };
        if reason.step() != Some(step) {
            return;
        }
        self.parked = None;
        self.recoveries = 0;
        match (reason, output) {
            (ParkReason::CompensationStuck { .. }, _) => return self.step(step).undo = Undo::Done,
            (ParkReason::InDoubt { .. }, None) => return self.rule_out(step, at),
            (ParkReason::UpcastStuck { .. }, Some(output)) => self.make_up(step, output, at),
            (_, Some(output)) => self.succeed(step, output, at),
            (_, None) => {
                self.step(step).be_done(Forward::Skipped { attempt: 0, adopted_at: 0, seq, at }, seq, at);
            }
        }
        self.forgive(step);
    }
}

impl Event {
    /// What identifies a request from outside.
    fn request(&self) -> Option<Uuid> {
        match self {
            Self::Cancelled { id, .. }
            | Self::Resumed { id, .. }
            | Self::Overruled { id, .. }
            | Self::Replied { id, .. }
            | Self::Signalled { id, .. } => Some(*id),
            _ => None,
        }
    }
}

/// A new round: its count goes on, its budget begins anew.
fn again(attempts: u32) -> Attempts {
    Attempts { failed: attempts, due: None, since: None }
}
