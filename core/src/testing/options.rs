//! Which moves there are.

use super::Environment;
use super::moves::{Arrival, Move};
use super::simulation::{Saga, Simulation, correlation};
use super::stage::Stage;
use crate::OutboxMessage;
use crate::machine::{self, Action, Phase};

impl Simulation {
    /// Everything that may happen next. Nothing, when all is over.
    pub(super) fn moves<E: Environment>(&self, stage: &Stage<E>) -> Vec<Move> {
        if let Some(record) = self.only_record() {
            return vec![record];
        }
        let mut moves = Vec::new();
        for (index, saga) in self.sagas.iter().enumerate() {
            self.attempts(stage, index, saga, &mut moves);
            self.signals_for(stage, index, saga, &mut moves);
        }
        if self.left.crashes > 0 && self.sagas.iter().any(|saga| !saga.flights.is_empty()) {
            moves.push(Move::Die);
        }
        let in_flight = |saga: &Saga| saga.flights.iter().any(|flight| flight.result.is_none());
        if self.left.zombies > 0 && self.sagas.iter().any(in_flight) {
            moves.push(Move::Stop);
        }
        moves.extend((0..self.late.len()).map(Move::Land));
        for (request, message) in self.requests.iter().enumerate() {
            moves.push(Move::Deliver { request, how: Arrival::Once });
            if self.left.duplicates > 0 {
                moves.push(Move::Deliver { request, how: Arrival::Twice });
            }
            if self.left.rejections > 0 && self.may_be_refused(stage, message) {
                moves.push(Move::Deliver { request, how: Arrival::Refused });
            }
        }
        moves.extend((0..self.replies.len()).map(Move::Reply));
        self.pass_time(stage, &mut moves);
        moves
    }

    /// What undoes something, or comes after the pivot, must succeed in the end.
    fn may_be_refused<E: Environment>(&self, stage: &Stage<E>, request: &OutboxMessage) -> bool {
        let Some(to) = correlation(request).filter(|to| !to.undo) else { return false };
        let asks = self.sagas.iter().find(|saga| saga.id == to.saga);
        asks.is_some_and(|saga| !machine::is_past_pivot(&stage.kinds[saga.kind].definition, &saga.state))
    }

    /// Where no worker can die any more, the order in which outcomes are recorded makes no difference.
    fn only_record(&self) -> Option<Move> {
        if self.left.crashes > 0 || self.left.zombies > 0 {
            return None;
        }
        self.sagas.iter().enumerate().find_map(|(saga, it)| {
            let flight = it.flights.iter().position(|flight| flight.result.is_some())?;
            Some(Move::Record { saga, flight, dies: false })
        })
    }

    fn attempts<E: Environment>(&self, stage: &Stage<E>, index: usize, saga: &Saga, moves: &mut Vec<Move>) {
        let kind = &stage.kinds[saga.kind];
        let lives = [false, true];
        let lives = if self.left.crashes > 0 { &lives[..] } else { &lives[..1] };
        let past_pivot = machine::is_past_pivot(&kind.definition, &saga.state);
        for (flight, it) in saga.flights.iter().enumerate() {
            if it.result.is_some() {
                moves.extend(lives.iter().map(|&dies| Move::Record { saga: index, flight, dies }));
                continue;
            }
            let step = &kind.definition.steps[it.attempt.node.step];
            let body = kind.body(it.attempt.node.step, it.phase);
            for how in self.left.ways(step, body, it.phase, past_pivot) {
                for &dies in lives {
                    let waits = how.is_in_hand(body);
                    if !(dies && (waits || how == super::moves::How::DieBeforeCommit)) {
                        moves.push(Move::Run { saga: index, flight, how, dies });
                    }
                }
            }
        }
    }

    fn signals_for<E: Environment>(&self, stage: &Stage<E>, index: usize, saga: &Saga, moves: &mut Vec<Move>) {
        if self.signals.is_empty() {
            return;
        }
        let definition = &stage.kinds[saga.kind].definition;
        for action in machine::decide(definition, &saga.state) {
            let Action::Wait(wait) = action else { continue };
            let name = &definition.steps[wait.node.step].name;
            if let Some(signal) = self.signals.iter().position(|(step, _)| step == name) {
                moves.push(Move::Signal { saga: index, signal });
            }
        }
    }

    /// Time passes when nothing else happens; or although something could, which makes a wait be in vain.
    fn pass_time<E: Environment>(&self, stage: &Stage<E>, moves: &mut Vec<Move>) {
        if self.sagas.iter().any(|saga| !saga.flights.is_empty()) || self.next_due(&stage.kinds).is_none() {
            return;
        }
        if moves.is_empty() {
            moves.push(Move::Wait);
        } else if self.left.unknowns > 0 && self.awaits_answer(stage) {
            moves.push(Move::WaitInVain);
        }
    }

    fn awaits_answer<E: Environment>(&self, stage: &Stage<E>) -> bool {
        self.sagas.iter().any(|saga| {
            let actions = machine::decide(&stage.kinds[saga.kind].definition, &saga.state);
            actions.iter().any(|action| matches!(action, Action::Wait(wait) if wait.until.is_some()))
        })
    }

    /// What a saga waits for that nobody will bring.
    pub(super) fn waits_in_vain<E: Environment>(&self, stage: &Stage<E>) -> Option<String> {
        let stuck = self.sagas.iter().find(|saga| !saga.rests())?;
        let definition = &stage.kinds[stuck.kind].definition;
        let waits = machine::decide(definition, &stuck.state).into_iter().find_map(|action| match action {
            Action::Wait(wait) => Some(wait),
            _ => None,
        });
        let step = waits.map(|wait| (definition.steps[wait.node.step].name.to_string(), wait.phase));
        Some(match step {
            Some((step, Phase::Undo)) => format!("the compensation of `{step}` waits for ever for its reply"),
            Some((step, _)) => {
                format!("`{step}` waits for ever; a `.participant(…)` answers requests, `.signal(…)` sends a signal")
            }
            None => format!("saga `{}` stands still", definition.name),
        })
    }
}
