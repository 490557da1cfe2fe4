//! What a worker does: it begins what was decided, and sees how that went.

use std::time::Duration;

use amends::event::{Answer, Cause, Event, Failure, Rejection};
use amends::machine::{Action, Attempt, Node, Phase, Wait};
use amends::state::{Forward, Undo, Waiting};
use amends::{Json, SagaId, StepKind};
use uuid::Uuid;

use crate::history::{Flight, History};

impl History {
    pub(crate) fn is_flying(&self, node: Node, phase: Phase) -> bool {
        self.flying.iter().any(|flight| (flight.node, flight.phase) == (node, phase))
    }

    /// Nothing is undone while something else is under way.
    pub(crate) fn launch(&mut self, actions: &[Action]) {
        let forward_flying = self.flying.iter().any(|flight| flight.phase != Phase::Undo);
        for action in actions {
            let (attempt, phase) = match action {
                // A step that may turn out to have happened is not begun once more meanwhile.
                Action::Run(attempt) if !self.is_flying(attempt.node, Phase::Probe) => (*attempt, Phase::Forward),
                // While the attempt itself is under way nobody can say that it will not happen.
                Action::Probe(attempt) if !self.is_flying(attempt.node, Phase::Forward) => (*attempt, Phase::Probe),
                Action::Compensate(attempt) if !forward_flying => (*attempt, Phase::Undo),
                Action::Accept { node, phase } => {
                    self.accept(*node, *phase);
                    continue;
                }
                _ => continue,
            };
            let is_due = attempt.due.is_none_or(|due| due <= self.now + Duration::from_millis(20));
            if is_due && !self.is_flying(attempt.node, phase) {
                self.oracle.check_begin(attempt, phase, self.now);
                let is_missed = phase == Phase::Forward && self.missed.contains(&attempt.node.step);
                assert!(!is_missed, "{:?} was out of reach", attempt.node);
                let event = self.begin(attempt, phase);
                self.flying.push(Flight { node: attempt.node, phase, number: attempt.number, event });
                if phase == Phase::Forward {
                    let step = attempt.node.step;
                    let flying = self.flying.iter().filter(|it| it.node.step == step && it.phase == Phase::Forward);
                    let waits = |it: &&Flight| {
                        matches!(self.recorded(it.node).map(|it| &it.forward), Some(Forward::Waiting(_)))
                    };
                    // It could not even be begun, which is only not recorded yet.
                    let is_over = |it: &&Flight| matches!(it.event, Some(Event::Failed { .. }));
                    self.oracle.check_concurrency(step, flying.filter(|it| !waits(it) && !is_over(it)).count());
                }
            }
        }
    }

    fn recorded(&self, node: Node) -> Option<&amends::state::StepState> {
        self.state.record(&self.definition.steps[node.step].name, node.item)
    }

    /// What waits is begun with its record; what does not goes on for a while.
    fn begin(&mut self, attempt: Attempt, phase: Phase) -> Option<Event> {
        let kind = self.kind(attempt.node, phase);
        if !kind.waits() || (kind == StepKind::Child && phase == Phase::Undo) {
            return None;
        }
        if kind != StepKind::Signal && self.bad_luck(20) {
            return Some(self.failed(attempt.node, phase, attempt.number, Cause::Error));
        }
        Some(self.begun(attempt.node, phase, attempt.number))
    }

    fn begun(&mut self, node: Node, phase: Phase, attempt: u32) -> Event {
        let (step, kind) = (&self.definition.steps[node.step], self.kind(node, phase));
        let timeout = match &step.compensation {
            Some(undo) if phase == Phase::Undo => undo.timeout,
            _ => step.timeout,
        };
        let is_undo_of_child = kind == StepKind::Child && phase == Phase::Undo;
        let within = (timeout < Duration::MAX && !is_undo_of_child).then_some(timeout);
        let child = (kind == StepKind::Child).then(|| SagaId(Uuid::from_u128(self.rng.u128(..))));
        Event::Begun { step: self.name(node), undo: phase == Phase::Undo, attempt, within, child }
    }

    /// What the answer says that has come.
    fn accept(&mut self, node: Node, phase: Phase) {
        if self.is_flying(node, phase) {
            return;
        }
        let record = self.recorded(node).unwrap();
        let ((Phase::Undo, _, Undo::Waiting(waiting)) | (Phase::Forward, Forward::Waiting(waiting), _)) =
            (phase, &record.forward, &record.undo)
        else {
            panic!("{node:?} waits for nothing");
        };
        let Waiting { attempt, answer: Some(answer), .. } = waiting.clone() else { panic!("{node:?} has no answer") };
        let step = self.name(node);
        let is_signal = self.kind(node, phase) == StepKind::Signal;
        let event = match (phase, answer) {
            (Phase::Undo, Answer::Done(_)) => Event::Compensated { step },
            (Phase::Undo, Answer::Rejected(_)) => self.failed(node, phase, attempt, Cause::Error),
            (_, Answer::Rejected(rejection)) => Event::Rejected { step, attempt, rejection },
            (_, Answer::Done(_)) if is_signal && self.bad_luck(8) => {
                Event::SignalRefused { step, error: "what?".into() }
            }
            (_, Answer::Done(_)) if !is_signal && self.bad_luck(20) => self.failed(node, phase, attempt, Cause::Data),
            (_, Answer::Done(output)) => Event::Succeeded { step, output },
        };
        self.flying.push(Flight { node, phase, number: attempt, event: Some(event) });
    }

    /// What is true by now without anybody's doing.
    pub(crate) fn follow_ups(&mut self, actions: &[Action]) -> Vec<Event> {
        let mut events = Vec::new();
        for action in actions {
            match action {
                Action::FanOut(step) if self.bad_luck(12) => {
                    events.push(self.failed(Node { step: *step, item: None }, Phase::Forward, 1, Cause::Data));
                }
                Action::FanOut(step) => {
                    let step = self.definition.steps[*step].name.to_string();
                    events.push(Event::FannedOut { step, items: self.rng.u32(0..5) });
                }
                Action::Divert { step, abandoned } if self.flying.is_empty() => {
                    let step = self.definition.steps[*step].name.to_string();
                    events.push(Event::Diverted { step, abandoned: abandoned.clone() });
                }
                Action::Expire(due) if *due <= self.now => events.push(Event::DeadlinePassed),
                Action::Wait(Wait { node, phase, number, until: Some(until), .. })
                    if *until <= self.now && !self.is_flying(*node, *phase) =>
                {
                    events.push(self.failed(*node, *phase, *number, Cause::Timeout));
                }
                _ => {}
            }
        }
        events
    }

    pub(crate) fn land(&mut self) -> Event {
        let flight = self.flying.swap_remove(self.rng.usize(0..self.flying.len()));
        let Flight { node, phase, number: attempt, event } = flight;
        let step = self.name(node);
        if let Some(event) = event {
            return event;
        }
        if phase == Phase::Forward && self.bad_luck(6) {
            if self.definition.steps[node.step].skippable && self.rng.bool() {
                return Event::Skipped { step, attempt, reason: String::new() };
            }
            return Event::Rejected { step, attempt, rejection: Rejection::new("no") };
        }
        if self.bad_luck(3) {
            self.lose(node, phase);
            return self.failed(node, phase, attempt, Cause::Error);
        }
        match phase {
            Phase::Undo if self.kind(node, phase) == StepKind::Child && self.rng.u8(0..4) > 0 => {
                self.begun(node, phase, attempt)
            }
            Phase::Undo => Event::Compensated { step },
            Phase::Probe => {
                let output = self.world.has_effect(node).then(|| Json::encode(&attempt).unwrap());
                Event::Probed { step, output }
            }
            Phase::Forward => {
                self.world.take_effect(node);
                Event::Succeeded { step, output: Json::encode(&attempt).unwrap() }
            }
        }
    }

    /// The worker has died. Nobody knows what became of its calls; answers that came to others are in the journal.
    pub(crate) fn lose_flights(&mut self) {
        for flight in std::mem::take(&mut self.flying) {
            if flight.event.is_none() {
                self.lose(flight.node, flight.phase);
            }
        }
    }

    fn lose(&mut self, node: Node, phase: Phase) {
        let may_have_happened = phase == Phase::Forward && self.kind(node, phase) == StepKind::Call;
        if may_have_happened && self.rng.bool() {
            self.world.take_effect(node);
        }
    }

    pub(crate) fn failed(&mut self, node: Node, phase: Phase, attempt: u32, cause: Cause) -> Event {
        let last = attempt >= 3 || cause == Cause::Data || self.rng.u8(0..6) == 0;
        let failure = failure(attempt, (!last).then(|| self.rng.u64(0..300)));
        let step = self.name(node);
        match phase {
            Phase::Forward => Event::Failed { step, failure: Failure { cause, ..failure } },
            Phase::Probe => Event::ProbeFailed { step, failure },
            Phase::Undo => Event::CompensationFailed { step, failure },
        }
    }

    pub(crate) fn is_tx(&self, flight: &Flight) -> bool {
        self.kind(flight.node, flight.phase) == StepKind::Tx
    }

    pub(crate) fn kind(&self, node: Node, phase: Phase) -> StepKind {
        let step = &self.definition.steps[node.step];
        match (phase, &step.compensation) {
            (Phase::Undo, Some(undo)) => undo.kind,
            (Phase::Probe, _) => StepKind::Call,
            _ => step.kind,
        }
    }

    pub(crate) fn name(&self, node: Node) -> String {
        let name = &self.definition.steps[node.step].name;
        node.item.map_or_else(|| name.to_string(), |item| format!("{name}[{item}]"))
    }
}

pub(crate) fn failure(attempt: u32, retry_in_ms: Option<u64>) -> Failure {
    let retry_in = retry_in_ms.map(Duration::from_millis);
    Failure { attempt, cause: Cause::Error, error: "oops".into(), retry_in }
}
