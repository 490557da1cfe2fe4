//! Random legal histories: what workers, operators and bad luck may do to a saga.

use std::time::Duration;

use amends::event::{Cause, Event, Failure, JournalRow, Rejection};
use amends::machine::{Action, Attempt, Phase, decide};
use amends::state::State;
use amends::{Definition, Json, SagaId, StepKind, WorkerId};
use chrono::DateTime;
use fastrand::Rng;
use uuid::Uuid;

use crate::graph;
use crate::oracle::Oracle;

/// More rows than any history may have.
const BOUND: usize = 1000;

pub(crate) struct History {
    pub(crate) definition: Definition,
    pub(crate) state: State,
    pub(crate) rows: Vec<JournalRow>,
    pub(crate) oracle: Oracle,
    rng: Rng,
    flying: Vec<(Attempt, Phase)>,
    /// How much more may go wrong.
    trouble: u32,
    resumes: u32,
    /// This worker dies at every turn.
    cursed: bool,
}

impl History {
    /// Plays until the saga has ended, or is parked and nobody resumes it any more.
    pub(crate) fn play(seed: u64, steps: usize, trouble: u32) -> Self {
        let mut rng = Rng::with_seed(seed);
        let definition = graph::random(&mut rng, steps);
        let mut history = Self {
            state: State::new(Json::null(), 1, DateTime::UNIX_EPOCH),
            rows: Vec::new(),
            oracle: Oracle::new(&definition),
            definition,
            flying: Vec::new(),
            trouble,
            resumes: rng.u32(0..4),
            cursed: rng.u8(0..16) == 0,
            rng,
        };
        while history.turn() {
            assert!(history.rows.len() < BOUND, "it neither ends nor parks");
        }
        history
    }

    /// One thing happens; false when nothing can any more.
    fn turn(&mut self) -> bool {
        if self.state.ended.is_some() {
            return false;
        }
        if self.state.parked.is_some() {
            return self.operator();
        }
        if self.bad_luck(if self.cursed { 1 } else { 12 }) {
            self.flying.clear();
            self.append(vec![Event::Adopted { by: WorkerId(Uuid::nil()) }]);
            return true;
        }
        if self.bad_luck(20) && (!self.oracle.past_pivot() || self.rng.u8(0..4) == 0) {
            // Few ids, so that some requests are repetitions.
            let id = Uuid::from_u128(self.rng.u128(0..3));
            self.append(vec![Event::Cancelled { id, reason: String::new(), reopens: false }]);
            return true;
        }
        self.work();
        true
    }

    fn operator(&mut self) -> bool {
        if self.resumes == 0 {
            return false;
        }
        self.resumes -= 1;
        let id = Uuid::from_u128(u128::from(100 + self.resumes));
        self.append(vec![Event::Resumed { id, by: "op".into(), note: String::new() }]);
        true
    }

    /// Like the worker: launch what is decided, record what has landed; end or park when nothing is under way.
    fn work(&mut self) {
        let actions = decide(&self.definition, &self.state);
        assert!(!actions.is_empty(), "a saga that is neither over nor parked has something to do");
        let over = match &actions[..] {
            [Action::End(outcome)] => Some(Event::Ended { outcome: *outcome, output: None }),
            [Action::Park(reason)] => Some(Event::Parked { reason: reason.clone(), fingerprint: Uuid::nil() }),
            _ => None,
        };
        if let (Some(event), true) = (over, self.flying.is_empty()) {
            if let Event::Parked { reason, .. } = &event {
                self.oracle.check_park(reason);
            }
            return self.append(vec![event]);
        }
        self.launch(&actions);
        let mut landed = vec![self.land()];
        while self.flying.iter().all(|flying| !self.is_tx(*flying)) && !self.flying.is_empty() && self.rng.bool() {
            landed.push(self.land());
        }
        self.append(landed);
    }

    fn launch(&mut self, actions: &[Action]) {
        let forward_flying = self.flying.iter().any(|(_, phase)| *phase == Phase::Forward);
        for action in actions {
            let (attempt, phase) = match action {
                Action::Run(attempt) => (*attempt, Phase::Forward),
                Action::Compensate(attempt) if !forward_flying => (*attempt, Phase::Undo),
                _ => continue,
            };
            if self.flying.iter().any(|(other, its)| (other.node, *its) == (attempt.node, phase)) {
                continue;
            }
            match phase {
                Phase::Undo => self.oracle.check_compensate(attempt.node.step),
                _ => self.oracle.check_run(attempt.node.step),
            }
            self.flying.push((attempt, phase));
        }
        assert!(!self.flying.is_empty(), "nothing is under way and nothing can be begun");
    }

    fn land(&mut self) -> Event {
        let (attempt, phase) = self.flying.swap_remove(self.rng.usize(0..self.flying.len()));
        let step = self.definition.steps[attempt.node.step].name.to_string();
        if phase == Phase::Forward && self.bad_luck(6) {
            let rejection = Rejection::new("no");
            return Event::Rejected { step, attempt: attempt.number, rejection };
        }
        if self.bad_luck(3) {
            let last = attempt.number >= 3 || self.rng.u8(0..6) == 0;
            let failure = failure(attempt.number, (!last).then_some(100));
            return match phase {
                Phase::Undo => Event::CompensationFailed { step, failure },
                _ => Event::Failed { step, failure },
            };
        }
        match phase {
            Phase::Undo => Event::Compensated { step },
            _ => Event::Succeeded { step, output: Json::encode(&attempt.number).unwrap() },
        }
    }

    fn is_tx(&self, (attempt, phase): (Attempt, Phase)) -> bool {
        let step = &self.definition.steps[attempt.node.step];
        match (phase, &step.compensation) {
            (Phase::Undo, Some(undo)) => undo.kind == StepKind::Tx,
            _ => step.kind == StepKind::Tx,
        }
    }

    fn append(&mut self, events: Vec<Event>) {
        let seq = self.state.seq + 1;
        self.oracle.apply(&events);
        let row = JournalRow { saga: SagaId(Uuid::nil()), seq, events, at: DateTime::UNIX_EPOCH };
        self.state.apply(&row);
        self.rows.push(row);
    }

    fn bad_luck(&mut self, one_in: u32) -> bool {
        let bad = self.trouble > 0 && self.rng.u32(0..one_in) == 0;
        self.trouble -= u32::from(bad);
        bad
    }
}

pub(crate) fn failure(attempt: u32, retry_in_ms: Option<u64>) -> Failure {
    let retry_in = retry_in_ms.map(Duration::from_millis);
    Failure { attempt, cause: Cause::Error, error: "oops".into(), retry_in }
}
