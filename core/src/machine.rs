//! The heart: what a saga does next, as a pure function of its definition and its state.
//!
//! No clock, no I/O, no async; total over every legal history. The runner, the explorer, the command line's
//! preview and the model checks all call [`decide`].

use chrono::{DateTime, Utc};

use crate::definition::{Definition, Step, StepKind};
use crate::event::{Outcome, ParkReason};
use crate::state::{Attempts, Forward, State, StepState, Undo};

/// A saga whose workers died this many times in a row, without progress between, is parked.
pub const MAX_RECOVERIES: u32 = 8;

/// Something that a saga does next. Actions of one decision are independent of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run a step's forward action.
    Run(Attempt),
    /// Undo a step.
    Compensate(Attempt),
    /// Wait for an operator.
    Park(ParkReason),
    /// It is over.
    End(Outcome),
}

/// One attempt at a step or at its compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Index into [`Definition::steps`].
    pub step: usize,
    /// Which attempt it is, counted from 1.
    pub number: u32,
    /// Not before this time, by the clock of the database; `None` is at once.
    pub due: Option<DateTime<Utc>>,
}

/// Which way a saga is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Towards completion.
    Forward,
    /// It undoes, or settles what it must undo.
    Backward,
}

/// What is known of a step once the saga has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Happened,
    DidNot,
    Unknown,
}

/// Decides what a saga does next.
///
/// An empty decision means that there is nothing to do here: it has ended, is parked, or was moved by a
/// newer version of this library.
pub fn decide(definition: &Definition, state: &State) -> Vec<Action> {
    if state.ended.is_some() || state.parked.is_some() || state.foreign {
        return Vec::new();
    }
    if state.recoveries >= MAX_RECOVERIES {
        return vec![Action::Park(ParkReason::CrashLoop { recoveries: state.recoveries })];
    }
    let saga = Saga { definition, state };
    match state.failing_since {
        None => saga.forward(),
        Some(_) if saga.past_pivot() => saga.forward_only(),
        Some(failed_at) => saga.backward(failed_at),
    }
}

/// Which way a saga in this state goes; decides the lane in which it is claimed.
pub fn direction(definition: &Definition, state: &State) -> Direction {
    let saga = Saga { definition, state };
    match state.failing_since {
        Some(_) if !saga.past_pivot() => Direction::Backward,
        _ => Direction::Forward,
    }
}

/// Whether a pivot has succeeded, so that the saga only goes forward.
pub fn is_past_pivot(definition: &Definition, state: &State) -> bool {
    Saga { definition, state }.past_pivot()
}

struct Saga<'a> {
    definition: &'a Definition,
    state: &'a State,
}

impl Saga<'_> {
    fn steps(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.definition.steps.iter().enumerate()
    }

    fn record(&self, step: usize) -> Option<&StepState> {
        self.state.steps.get(&*self.definition.steps[step].name)
    }

    fn forward_of(&self, step: usize) -> &Forward {
        const NOTHING: &Forward = &Forward::Pending(Attempts { failed: 0, due: None });
        self.record(step).map_or(NOTHING, |record| &record.forward)
    }

    /// The row that made the step ready; `None` while a predecessor has not succeeded.
    fn ready_at(&self, step: usize) -> Option<i64> {
        self.definition.steps[step].after.iter().try_fold(0, |latest, &before| match self.forward_of(before) {
            Forward::Succeeded { seq, .. } => Some(latest.max(*seq)),
            _ => None,
        })
    }

    fn past_pivot(&self) -> bool {
        self.steps().any(|(i, step)| step.pivot && matches!(self.forward_of(i), Forward::Succeeded { .. }))
    }

    fn runnable(&self) -> Vec<Action> {
        self.steps()
            .filter_map(|(i, _)| match self.forward_of(i) {
                Forward::Pending(attempts) if self.ready_at(i).is_some() => Some(run(i, *attempts)),
                _ => None,
            })
            .collect()
    }

    fn forward(&self) -> Vec<Action> {
        let actions = self.runnable();
        // Without a failure every unfinished graph has a runnable step, since edges point backwards only.
        if actions.is_empty() { vec![Action::End(Outcome::Completed)] } else { actions }
    }

    /// Past the pivot there is no way back: what can still run runs, then an operator decides.
    fn forward_only(&self) -> Vec<Action> {
        let actions = self.runnable();
        if !actions.is_empty() {
            return actions;
        }
        let stuck = self
            .steps()
            .find(|(i, _)| matches!(self.forward_of(*i), Forward::Rejected { .. } | Forward::GaveUp { .. }));
        match stuck {
            Some((_, step)) => vec![Action::Park(ParkReason::ForwardStuck { step: step.name.to_string() })],
            // Cancelled after the pivot, and all went well.
            None => vec![Action::End(Outcome::Completed)],
        }
    }

    fn backward(&self, failed_at: i64) -> Vec<Action> {
        let verdicts: Vec<_> = self.steps().map(|(i, step)| self.verdict(i, step, failed_at)).collect();
        match self.settle(&verdicts) {
            Settling::Running(actions) => return actions,
            Settling::Stuck(reason) => return vec![Action::Park(reason)],
            Settling::Settled => {}
        }
        self.compensate(&verdicts)
    }

    /// A call counts as started as soon as it was ready: its worker may have died between effect and record.
    fn verdict(&self, index: usize, step: &Step, failed_at: i64) -> Verdict {
        let unless_tx = |verdict| if step.kind == StepKind::Tx { Verdict::DidNot } else { verdict };
        match self.forward_of(index) {
            Forward::Succeeded { .. } => Verdict::Happened,
            Forward::GaveUp { .. } => unless_tx(Verdict::Unknown),
            Forward::Rejected { attempt, adopted_at, .. } => {
                // Otherwise an earlier request may still arrive (model: adoption.py).
                let definite = *attempt == 1 && self.ready_at(index).is_some_and(|ready| *adopted_at <= ready);
                unless_tx(if definite { Verdict::DidNot } else { Verdict::Unknown })
            }
            Forward::Pending(attempts) => match self.ready_at(index) {
                Some(ready) if ready < failed_at || attempts.failed > 0 => unless_tx(Verdict::Unknown),
                _ => Verdict::DidNot,
            },
        }
    }

    /// An unknown outcome that cannot be undone blindly is found out first, by asking again under the same key.
    fn settle(&self, verdicts: &[Verdict]) -> Settling {
        let mut running = Vec::new();
        let mut stuck = None;
        for (i, step) in self.steps() {
            let must_know = step.pivot || step.compensation.as_ref().is_some_and(|undo| undo.needs_output);
            if verdicts[i] != Verdict::Unknown || !must_know {
                continue;
            }
            match self.forward_of(i) {
                Forward::Pending(attempts) => running.push(run(i, *attempts)),
                _ => stuck = stuck.or_else(|| Some(ParkReason::InDoubt { step: step.name.to_string() })),
            }
        }
        match (running.is_empty(), stuck) {
            (false, _) => Settling::Running(running),
            (true, Some(reason)) => Settling::Stuck(reason),
            (true, None) => Settling::Settled,
        }
    }

    /// Reverse topological order, parallel where forward was parallel.
    fn compensate(&self, verdicts: &[Verdict]) -> Vec<Action> {
        let mut blocked = vec![false; verdicts.len()];
        let (mut actions, mut stuck) = (Vec::new(), None);
        for (i, step) in self.definition.steps.iter().enumerate().rev() {
            let open = verdicts[i] != Verdict::DidNot && step.compensation.is_some() && !self.is_undone(i);
            if open && !blocked[i] {
                match self.record(i).map(|record| &record.undo) {
                    Some(Undo::GaveUp { .. }) => {
                        stuck = Some(ParkReason::CompensationStuck { step: step.name.to_string() });
                    }
                    Some(Undo::Pending(attempts)) => actions.push(compensate(i, *attempts)),
                    Some(Undo::Done) | None => actions.push(compensate(i, Attempts::default())),
                }
            }
            if open || blocked[i] {
                step.after.iter().for_each(|&before| blocked[before] = true);
            }
        }
        match (actions.is_empty(), stuck) {
            (false, _) => actions,
            (true, Some(reason)) => vec![Action::Park(reason)],
            (true, None) => vec![Action::End(Outcome::Compensated)],
        }
    }

    fn is_undone(&self, step: usize) -> bool {
        self.record(step).is_some_and(|record| record.undo == Undo::Done)
    }
}

enum Settling {
    Settled,
    Running(Vec<Action>),
    Stuck(ParkReason),
}

fn run(step: usize, attempts: Attempts) -> Action {
    Action::Run(Attempt { step, number: attempts.failed.saturating_add(1), due: attempts.due })
}

fn compensate(step: usize, attempts: Attempts) -> Action {
    Action::Compensate(Attempt { step, number: attempts.failed.saturating_add(1), due: attempts.due })
}
