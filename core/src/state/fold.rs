//! What each event does to the state.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Attempts, Fan, Forward, Parked, State, StepState, Undo, Waiting, split_name};
use crate::Json;
use crate::event::{Answer, Event, Failure, ParkReason, Rejection};
use crate::retry::LONGEST_PAUSE;

/// More items than this are not believed: the list would be longer than an input can be.
const MOST_ITEMS: u32 = 1 << 20;

impl State {
    pub(super) fn apply_event(&mut self, event: &Event, at: DateTime<Utc>) {
        let seq = self.seq;
        if event.is_progress() {
            self.recoveries = 0;
        }
        match event {
            Event::Succeeded { step, output } => self.succeed(step, output, at),
            Event::Skipped { step, attempt, .. } => {
                let adopted_at = self.adopted_at;
                self.step(step).be_done(Forward::Skipped { attempt: *attempt, adopted_at, seq, at }, seq, at);
            }
            Event::Rejected { step, attempt, rejection } => self.reject(step, *attempt, rejection, at),
            // A late answer to an earlier attempt came before this was recorded; what follows from it may have begun.
            Event::Failed { step, .. } | Event::Probed { step, .. } if self.has_succeeded(step) => {}
            Event::CompensationFailed { step, .. } if self.is_undone(step) => {}
            Event::Failed { step, failure } => {
                let record = self.step(step);
                record.error = Some(failure.error.clone());
                record.forward = match failure.retry_in {
                    Some(pause) => Forward::Pending(next(failure, pause, record.forward.since(), at)),
                    None => Forward::GaveUp { attempts: failure.attempt, seq },
                };
                if failure.retry_in.is_none() {
                    self.fail(step, at);
                }
            }
            Event::Begun { step, undo, attempt, within, child } => {
                self.begin(step, *undo, *attempt, within.map(|within| at + within.min(LONGEST_PAUSE)), *child);
            }
            Event::SignalRefused { step, error } => {
                let record = self.step(step);
                record.error = Some(error.clone());
                if let Forward::Waiting(waiting) = &mut record.forward {
                    waiting.answer = None;
                }
                self.hand_over_signal(step);
            }
            Event::FannedOut { step, items } => {
                let items = vec![StepState::default(); (*items).min(MOST_ITEMS) as usize];
                self.fans.entry(step.clone()).or_insert(Fan { seq, at, items });
            }
            Event::Probed { step, output } => {
                self.step(step).probe = Undo::Done;
                match output {
                    Some(output) => {
                        self.succeed(step, output, at);
                        // Nothing has been undone yet, and if this was all that had failed, nothing needs to be.
                        self.forgive(step);
                    }
                    None => self.rule_out(step, at),
                }
            }
            Event::ProbeFailed { step, failure } => {
                let record = self.step(step);
                record.error = Some(failure.error.clone());
                record.probe = undo_failed(&record.probe, failure, at);
            }
            Event::Diverted { step, abandoned } => {
                self.diverted.insert(step.clone(), (seq, at));
                for failed in abandoned {
                    self.forgive(failed);
                }
            }
            Event::Upcast { step, output } => self.make_up(step, output, at),
            Event::Compensated { step } => self.step(step).undo = Undo::Done,
            Event::CompensationFailed { step, failure } => {
                let record = self.step(step);
                record.error = Some(failure.error.clone());
                record.undo = undo_failed(&record.undo, failure, at);
            }
            Event::Adopted { .. } => {
                self.adopted_at = seq;
                self.recoveries += 1;
            }
            Event::Parked { reason, fingerprint } => {
                self.parked = Some(Parked { reason: reason.clone(), fingerprint: *fingerprint, at });
            }
            Event::Ended { outcome, output } => {
                self.ended = Some(*outcome);
                self.output.clone_from(output);
            }
            Event::Unknown(_) => self.foreign = true,
            _ => self.apply_from_outside(event, at),
        }
    }

    fn has_succeeded(&self, step: &str) -> bool {
        self.named(step).is_some_and(|record| matches!(record.forward, Forward::Succeeded { .. }))
    }

    fn is_undone(&self, step: &str) -> bool {
        self.named(step).is_some_and(|record| record.undo == Undo::Done)
    }

    pub(super) fn succeed(&mut self, step: &str, output: &Json, at: DateTime<Utc>) {
        let seq = self.seq;
        let forward = Forward::Succeeded { output: output.clone(), seq, at, made_up: false };
        self.step(step).be_done(forward, seq, at);
    }

    pub(super) fn make_up(&mut self, step: &str, output: &Json, at: DateTime<Utc>) {
        let seq = self.seq;
        let forward = Forward::Succeeded { output: output.clone(), seq, at, made_up: true };
        self.step(step).be_done(forward, seq, at);
    }

    pub(super) fn reject(&mut self, step: &str, attempt: u32, rejection: &Rejection, at: DateTime<Utc>) {
        let (adopted_at, seq) = (self.adopted_at, self.seq);
        self.step(step).forward = Forward::Rejected { rejection: rejection.clone(), attempt, adopted_at, seq };
        self.fail(step, at);
    }

    /// It is known not to have happened.
    pub(super) fn rule_out(&mut self, step: &str, at: DateTime<Utc>) {
        let seq = self.seq;
        self.step(step).forward = Forward::Absent { seq };
        self.fail(step, at);
    }

    fn fail(&mut self, step: &str, at: DateTime<Utc>) {
        if !self.failed.contains_key(step) {
            // Once one item has failed no other is begun, whatever becomes of that one.
            let (name, _) = split_name(step);
            let others = self.failed.iter().filter(|(other, _)| split_name(other).0 == name);
            let since = others.map(|(_, since)| *since).min().unwrap_or((self.seq, at));
            self.failed.insert(step.to_owned(), since);
        }
        self.begin_to_fail(at);
    }

    fn begin_to_fail(&mut self, at: DateTime<Utc>) {
        // What was forgiven in the same row never went forward in between.
        let all_along = self.forgiven.filter(|(row, _)| *row == self.seq).map(|(_, since)| since);
        self.failing_since.get_or_insert(all_along.unwrap_or((self.seq, at)));
    }

    /// The step is no longer what makes the saga fail.
    pub(super) fn forgive(&mut self, step: &str) {
        if let Some(since) = self.failed.remove(step) {
            self.sent_on.push((step.to_owned(), since, self.seq));
        }
        if self.failed.is_empty() {
            self.sent_on.clear();
            if self.cancelled_at.is_none()
                && let Some(since) = self.failing_since.take()
            {
                self.forgiven = Some((self.seq, since));
            }
        }
    }

    pub(super) fn cancel(&mut self, reason: &str, at: DateTime<Utc>) {
        self.cancelled_at.get_or_insert(self.seq);
        self.cancel_reason.get_or_insert_with(|| reason.to_owned());
        self.begin_to_fail(at);
        // Going on killed its workers; going back may not.
        if matches!(&self.parked, Some(parked) if matches!(parked.reason, ParkReason::CrashLoop { .. })) {
            self.parked = None;
            self.recoveries = 0;
        }
    }

    fn begin(
        &mut self,
        step: &str,
        undo: bool,
        attempt: u32,
        until: Option<DateTime<Utc>>,
        child: Option<crate::SagaId>,
    ) {
        let seq = self.seq;
        let record = self.step(step);
        let waiting = |since| Waiting { attempt, seq, until, since, child, answer: None };
        if undo {
            record.undo = Undo::Waiting(waiting(record.undo.since()));
            return;
        }
        record.forward = Forward::Waiting(waiting(record.forward.since()));
        record.child = child.or(record.child);
        self.hand_over_signal(step);
    }

    /// A signal that came early, or too many, goes to its step as soon as that waits for one.
    pub(super) fn hand_over_signal(&mut self, step: &str) {
        let Some(kept) = self.signals.get_mut(step) else { return };
        if let Some(StepState { forward: Forward::Waiting(waiting), .. }) = self.steps.get_mut(step)
            && waiting.answer.is_none()
            && let Some(payload) = kept.pop_front()
        {
            waiting.answer = Some(Answer::Done(payload));
        }
        if kept.is_empty() {
            self.signals.remove(step);
        }
    }

    pub(super) fn step(&mut self, name: &str) -> &mut StepState {
        if let (step, Some(item)) = split_name(name)
            && self.fans.get(step).is_some_and(|fan| fan.items.len() > item as usize)
        {
            return &mut self.fans.get_mut(step).expect("it was found above").items[item as usize];
        }
        // Two look-ups instead of `entry`, which would allocate the name each time.
        if !self.steps.contains_key(name) {
            self.steps.insert(name.to_owned(), StepState::default());
        }
        self.steps.get_mut(name).expect("it was inserted above")
    }
}

impl StepState {
    pub(super) fn be_done(&mut self, forward: Forward, seq: i64, at: DateTime<Utc>) {
        self.forward = forward;
        self.done.get_or_insert((seq, at));
    }
}

impl Event {
    /// It shows that the saga gets on, so that its workers' deaths are not its fault.
    fn is_progress(&self) -> bool {
        !matches!(
            self,
            Self::Adopted { .. }
                | Self::Cancelled { .. }
                | Self::DeadlinePassed
                | Self::Parked { .. }
                | Self::Resumed { .. }
                | Self::Overruled { .. }
                | Self::Replied { .. }
                | Self::Signalled { .. }
                | Self::Ended { .. }
                | Self::Unknown(_)
        )
    }
}

impl Forward {
    /// It did not succeed, and will not.
    pub(crate) const fn has_failed(&self) -> bool {
        matches!(self, Self::Rejected { .. } | Self::GaveUp { .. } | Self::Absent { .. })
    }

    fn since(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Pending(attempts) => attempts.since,
            Self::Waiting(waiting) => waiting.since,
            _ => None,
        }
    }
}

impl Undo {
    fn since(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Pending(attempts) => attempts.since,
            Self::Waiting(waiting) => waiting.since,
            _ => None,
        }
    }
}

fn undo_failed(undo: &Undo, failure: &Failure, at: DateTime<Utc>) -> Undo {
    match failure.retry_in {
        Some(pause) => Undo::Pending(next(failure, pause, undo.since(), at)),
        None => Undo::GaveUp { attempts: failure.attempt },
    }
}

fn next(failure: &Failure, pause: Duration, since: Option<DateTime<Utc>>, at: DateTime<Utc>) -> Attempts {
    Attempts { failed: failure.attempt, due: Some(at + pause.min(LONGEST_PAUSE)), since: since.or(Some(at)) }
}
