//! What each event does to the state.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Attempts, Fan, Forward, Parked, State, StepState, Undo, Waiting, split_name};
use crate::Json;
use crate::event::{Answer, Event, Failure, Outcome, ParkReason, Rejection};

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
            Event::Upcast { step, output } => {
                let forward = Forward::Succeeded { output: output.clone(), seq, at, made_up: true };
                self.step(step).be_done(forward, seq, at);
            }
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

    /// What was asked for, or answered, by somebody other than the worker.
    fn apply_from_outside(&mut self, event: &Event, at: DateTime<Utc>) {
        match event {
            Event::DeadlinePassed => self.cancel("the deadline has passed", at),
            Event::Cancelled { id, reason, reopens } => {
                if self.requests.insert(*id) {
                    if *reopens && self.ended == Some(Outcome::Completed) {
                        self.ended = None;
                    }
                    self.cancel(reason, at);
                }
            }
            Event::Resumed { id, .. } => {
                if self.requests.insert(*id) {
                    self.resume();
                }
            }
            Event::Overruled { id, step, output, .. } => {
                if self.requests.insert(*id) {
                    self.overrule(step, output.as_ref(), at);
                }
            }
            Event::Replied { id, step, undo, attempt, answer } => {
                if self.requests.insert(*id) && self.ended.is_none() {
                    self.reply(step, *undo, *attempt, answer, at);
                }
            }
            Event::Signalled { id, step, payload } => {
                if self.requests.insert(*id) && self.ended.is_none() {
                    self.signals.entry(step.clone()).or_default().push_back(payload.clone());
                    self.hand_over_signal(step);
                }
            }
            _ => {}
        }
    }

    fn succeed(&mut self, step: &str, output: &Json, at: DateTime<Utc>) {
        let seq = self.seq;
        let forward = Forward::Succeeded { output: output.clone(), seq, at, made_up: false };
        self.step(step).be_done(forward, seq, at);
    }

    fn reject(&mut self, step: &str, attempt: u32, rejection: &Rejection, at: DateTime<Utc>) {
        let (adopted_at, seq) = (self.adopted_at, self.seq);
        self.step(step).forward = Forward::Rejected { rejection: rejection.clone(), attempt, adopted_at, seq };
        self.fail(step, at);
    }

    /// It is known not to have happened.
    fn rule_out(&mut self, step: &str, at: DateTime<Utc>) {
        let seq = self.seq;
        self.step(step).forward = Forward::Absent { seq };
        self.fail(step, at);
    }

    fn fail(&mut self, step: &str, at: DateTime<Utc>) {
        if !self.failed.contains_key(step) {
            self.failed.insert(step.to_owned(), (self.seq, at));
        }
        self.begin_to_fail(at);
    }

    fn begin_to_fail(&mut self, at: DateTime<Utc>) {
        // What was forgiven in the same row never went forward in between.
        let all_along = self.forgiven.filter(|(row, _)| *row == self.seq).map(|(_, since)| since);
        self.failing_since.get_or_insert(all_along.unwrap_or((self.seq, at)));
    }

    /// The step is no longer what makes the saga fail.
    fn forgive(&mut self, step: &str) {
        self.failed.remove(step);
        if self.failed.is_empty()
            && self.cancelled_at.is_none()
            && let Some(since) = self.failing_since.take()
        {
            self.forgiven = Some((self.seq, since));
        }
    }

    fn cancel(&mut self, reason: &str, at: DateTime<Utc>) {
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
    fn hand_over_signal(&mut self, step: &str) {
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
            Some(ParkReason::CrashLoop { .. }) | None => {}
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
            (_, Some(output)) => self.succeed(step, output, at),
            (_, None) => {
                self.step(step).be_done(Forward::Skipped { attempt: 0, adopted_at: 0, seq, at }, seq, at);
            }
        }
        self.forgive(step);
    }

    fn step(&mut self, name: &str) -> &mut StepState {
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
    fn be_done(&mut self, forward: Forward, seq: i64, at: DateTime<Utc>) {
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

/// No pause is longer: a century. A time beyond the calendar's end could not be computed.
const LONGEST_PAUSE: Duration = Duration::from_hours(100 * 365 * 24);

fn undo_failed(undo: &Undo, failure: &Failure, at: DateTime<Utc>) -> Undo {
    match failure.retry_in {
        Some(pause) => Undo::Pending(next(failure, pause, undo.since(), at)),
        None => Undo::GaveUp { attempts: failure.attempt },
    }
}

fn next(failure: &Failure, pause: Duration, since: Option<DateTime<Utc>>, at: DateTime<Utc>) -> Attempts {
    Attempts { failed: failure.attempt, due: Some(at + pause.min(LONGEST_PAUSE)), since: since.or(Some(at)) }
}

/// A new round: its count goes on, its budget begins anew.
fn again(attempts: u32) -> Attempts {
    Attempts { failed: attempts, due: None, since: None }
}
