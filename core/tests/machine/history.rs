//! Random legal histories: what workers, operators, other services and bad luck may do to a saga.

use std::collections::BTreeSet;
use std::time::Duration;

use amends::event::{Event, JournalRow, Outcome};
use amends::machine::{Action, Direction, Node, Phase, decide, direction, may_reach};
use amends::state::State;
use amends::{Definition, Json, SagaId, StepKind, WorkerId};
use chrono::{DateTime, Utc};
use fastrand::Rng;
use uuid::Uuid;

use crate::graph;
use crate::oracle::Oracle;
use crate::world::World;

/// More rows than any history may have.
const BOUND: usize = 2000;

pub(crate) struct History {
    pub(crate) definition: Definition,
    pub(crate) state: State,
    pub(crate) rows: Vec<JournalRow>,
    pub(crate) oracle: Oracle,
    pub(crate) world: World,
    pub(crate) rng: Rng,
    pub(crate) now: DateTime<Utc>,
    pub(crate) flying: Vec<Flight>,
    /// How much more may go wrong.
    trouble: u32,
    resumes: u32,
    reopens: bool,
    /// This worker dies at every turn.
    cursed: bool,
    /// Steps that wait for a signal and to which the saga does not come any more, by what was known.
    pub(crate) missed: BTreeSet<usize>,
}

/// Something that a worker has begun and not recorded yet.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub(crate) node: Node,
    pub(crate) phase: Phase,
    pub(crate) number: u32,
    /// What will be recorded, if that is settled.
    pub(crate) event: Option<Event>,
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
            world: World::default(),
            definition,
            now: DateTime::UNIX_EPOCH,
            flying: Vec::new(),
            trouble,
            resumes: rng.u32(0..5),
            reopens: rng.u8(0..4) == 0,
            cursed: rng.u8(0..16) == 0,
            missed: BTreeSet::new(),
            rng,
        };
        while history.turn() {
            assert!(history.rows.len() < BOUND, "it neither ends nor parks");
        }
        history.come_too_late();
        history
    }

    /// One thing happens; false when nothing can any more.
    fn turn(&mut self) -> bool {
        if self.state.ended.is_some() {
            return self.reopen();
        }
        if self.state.parked.is_some() {
            if self.bad_luck(4) {
                return self.meddle();
            }
            return self.operator();
        }
        if self.bad_luck(20) {
            self.now += Duration::from_millis(self.rng.u64(0..6000));
        }
        if self.bad_luck(if self.cursed { 1 } else { 12 }) {
            self.launch_perhaps();
            self.lose_flights();
            self.append(vec![Event::Adopted { by: WorkerId(Uuid::nil()) }]);
            return true;
        }
        if self.bad_luck(20) {
            self.launch_perhaps();
            return self.meddle();
        }
        self.work();
        true
    }

    fn launch_perhaps(&mut self) {
        if self.rng.bool() {
            let actions = decide(&self.definition, &self.state);
            self.launch(&actions);
        }
    }

    /// Somebody cancels, answers or sends a signal.
    fn meddle(&mut self) -> bool {
        let event = match self.rng.u8(0..4) {
            0 if !self.oracle.is_past_pivot() || self.rng.u8(0..4) == 0 => Some(self.cancellation(false)),
            0 | 1 => self.early_signal(),
            _ => self.any_reply(),
        };
        if let Some(event) = event {
            // What was only about to be begun, or said, is decided on anew.
            self.flying
                .retain(|flight| !matches!(flight.event, Some(Event::Begun { .. } | Event::SignalRefused { .. })));
            self.append(vec![event]);
        }
        true
    }

    fn cancellation(&mut self, reopens: bool) -> Event {
        // Few ids, so that some requests are repetitions.
        let id = Uuid::from_u128(self.rng.u128(0..3) + if reopens { 10 } else { 0 });
        Event::Cancelled { id, reason: String::new(), reopens }
    }

    /// The saga that started it is undone, and so this one is too.
    fn reopen(&mut self) -> bool {
        let can = self.reopens && self.state.ended == Some(Outcome::Completed) && !self.oracle.is_past_pivot();
        self.reopens = false;
        if can {
            let event = self.cancellation(true);
            self.append(vec![event]);
        }
        can
    }

    fn operator(&mut self) -> bool {
        if self.resumes == 0 {
            return false;
        }
        self.resumes -= 1;
        let id = Uuid::from_u128(u128::from(100 + self.resumes));
        let event = match self.overruled(id) {
            Some(event) if self.rng.bool() => event,
            _ => Event::Resumed { id, by: "op".into(), note: String::new() },
        };
        self.append(vec![event]);
        true
    }

    /// Like the worker: launch what is decided, record what has landed; end or park when nothing is under way.
    fn work(&mut self) {
        let actions = decide(&self.definition, &self.state);
        assert!(!actions.is_empty(), "a saga that is neither over nor parked has something to do");
        self.launch(&actions);
        let settled = |flight: &Flight| flight.event.is_some();
        if let Some(first) = self.flying.iter().position(settled).filter(|_| self.rng.u8(0..8) > 0) {
            let event = self.flying.swap_remove(first).event.unwrap();
            return self.record(vec![event]);
        }
        if !self.follow_ups(&actions).is_empty()
            || matches!(actions[..], [Action::End(_) | Action::Park(_)]) && self.flying.is_empty()
        {
            return self.record(Vec::new());
        }
        if self.flying.is_empty() || self.rng.u8(0..16) == 0 {
            return self.wait(&actions);
        }
        let mut landed = vec![self.land()];
        while self.flying.iter().all(|flight| !self.is_tx(flight)) && !self.flying.is_empty() && self.rng.bool() {
            landed.push(self.land());
        }
        self.record(landed);
    }

    /// Time passes, or what is waited for comes.
    fn wait(&mut self, actions: &[Action]) {
        let waits = |action: &&Action| matches!(action, Action::Wait(wait) if !self.is_flying(wait.node, wait.phase));
        let waits: Vec<_> = actions.iter().filter(waits).cloned().collect();
        let due = actions.iter().filter_map(Action::due).flatten().filter(|due| *due > self.now).min();
        let comes = !waits.is_empty() && (due.is_none() || !self.bad_luck(6));
        match (due, comes) {
            (_, true) => {
                let Action::Wait(wait) = waits[self.rng.usize(0..waits.len())] else { unreachable!() };
                if let Some(event) = self.what_is_waited_for(wait) {
                    self.append(vec![event]);
                }
            }
            (Some(due), false) => self.now = due,
            (None, false) => assert!(!self.flying.is_empty(), "nothing is under way, due or waited for: {actions:?}"),
        }
    }

    /// As a worker plans an append: with what follows from what has happened, and the end if it is one.
    fn record(&mut self, mut events: Vec<Event>) {
        self.begin_row();
        loop {
            self.apply(events);
            let actions = decide(&self.definition, &self.state);
            events = self.follow_ups(&actions);
            if !events.is_empty() {
                continue;
            }
            if self.flying.is_empty() {
                match &actions[..] {
                    [Action::End(outcome)] => self.apply(vec![Event::Ended { outcome: *outcome, output: None }]),
                    [Action::Park(reason)] => {
                        self.apply(vec![Event::Parked { reason: reason.clone(), fingerprint: Uuid::nil() }]);
                    }
                    _ => {}
                }
            }
            break;
        }
        self.end_row();
    }

    /// A row from outside; nothing is worked out of it.
    pub(crate) fn append(&mut self, events: Vec<Event>) {
        self.begin_row();
        self.apply(events);
        self.end_row();
    }

    fn begin_row(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(0..30));
        self.oracle.begin_row(self.now);
        let seq = self.state.seq + 1;
        self.rows.push(JournalRow { saga: SagaId(Uuid::nil()), seq, events: Vec::new(), at: self.now });
    }

    /// The same as all of the row at once.
    fn apply(&mut self, events: Vec<Event>) {
        self.oracle.apply(&events);
        self.send(&events);
        for event in &events {
            if let Event::Diverted { .. } | Event::Ended { outcome: Outcome::Compensated, .. } = event {
                self.world.check_undone(&self.oracle, matches!(event, Event::Ended { .. }));
            }
        }
        let row = self.rows.last_mut().unwrap();
        let part = JournalRow { saga: row.saga, seq: row.seq, events, at: row.at };
        self.state.apply(&part);
        row.events.extend(part.events);
    }

    fn end_row(&mut self) {
        self.oracle.end_row(self.now);
        let signals = self.definition.steps.iter().enumerate().filter(|(_, it)| it.kind == StepKind::Signal);
        let missed = signals.filter(|(step, _)| !may_reach(&self.definition, &self.state, *step));
        self.missed.extend(missed.map(|(step, _)| step));
        let way = if self.oracle.is_going_back() { Direction::Backward } else { Direction::Forward };
        assert_eq!(direction(&self.definition, &self.state), way, "{:?}", self.rows.last());
    }

    /// Whatever comes after its end changes nothing.
    fn come_too_late(&mut self) {
        if self.state.ended.is_none() {
            return;
        }
        for _ in 0..3 {
            let reply = if self.rng.bool() { self.any_reply() } else { self.early_signal() };
            let Some(event) = reply else { continue };
            let before = self.state.clone();
            self.append(vec![event]);
            let (seq, requests) = (self.state.seq, self.state.requests.clone());
            assert_eq!(self.state, State { seq, requests, ..before }, "it had ended");
        }
    }

    pub(crate) fn bad_luck(&mut self, one_in: u32) -> bool {
        let bad = self.trouble > 0 && self.rng.u32(0..one_in) == 0;
        self.trouble -= u32::from(bad);
        bad
    }
}
