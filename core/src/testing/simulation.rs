//! Sagas as they stand, without the world: journals folded, attempts under way, messages on their way. Pure.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::moves::Faults;
use super::stage::Kind;
use super::timeline::Log;
use crate::event::{Event, JournalRow, Outcome};
use crate::machine::{self, Action, Attempt, Node, Phase, Wait};
use crate::saga::Data;
use crate::state::{State, item_name};
use crate::store::{NewSaga, Priority, Status, StepTransaction};
use crate::worker::waiting::{self, Asker};
use crate::worker::{child, plan};
use crate::{Answer, CORRELATION_HEADER, Correlation, Json, OutboxMessage, SagaId, WorkerId};

/// All that a schedule changes, but for the world.
#[derive(Debug, Clone)]
pub(super) struct Simulation {
    pub(super) sagas: Vec<Saga>,
    pub(super) now: DateTime<Utc>,
    pub(super) published: Arc<Vec<OutboxMessage>>,
    /// Attempts that nobody waits for any more, and that still take effect.
    pub(super) late: Vec<Late>,
    pub(super) requests: Vec<Arc<OutboxMessage>>,
    pub(super) replies: Vec<Reply>,
    pub(super) signals: Vec<(String, Json)>,
    pub(super) left: Faults,
    pub(super) log: Log,
    /// What the saga under test has recorded, if somebody reads the log.
    pub(super) events: Vec<Event>,
    /// The code of rejections that no body made.
    pub(super) code: &'static str,
}

/// One saga.
#[derive(Debug, Clone)]
pub(super) struct Saga {
    pub(super) id: SagaId,
    pub(super) kind: usize,
    pub(super) state: Arc<State>,
    pub(super) status: Status,
    pub(super) parent: Option<SagaId>,
    /// A worker has it in hand.
    pub(super) owned: bool,
    pub(super) flights: Vec<Flight>,
}

/// An attempt under way.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) attempt: Attempt,
    pub(super) phase: Phase,
    pub(super) data: Data,
    /// What came of it, not recorded yet.
    pub(super) result: Option<Arc<Done>>,
}

/// What came of an attempt.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) event: Event,
    pub(super) outbox: Vec<OutboxMessage>,
    pub(super) starts: Vec<NewSaga>,
}

/// A call that takes effect when nobody waits for it.
#[derive(Debug, Clone)]
pub(super) struct Late {
    pub(super) saga: usize,
    pub(super) flight: Flight,
}

/// A reply on its way home.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reply {
    pub(super) id: Uuid,
    pub(super) to: Correlation,
    pub(super) answer: Answer,
}

/// The saga and the step that a request comes from.
pub(super) fn correlation(request: &OutboxMessage) -> Option<Correlation> {
    request.headers.get(CORRELATION_HEADER)?.parse().ok()
}

impl Flight {
    /// The name under which it is recorded.
    pub(super) fn name(&self) -> String {
        let node = self.attempt.node;
        item_name(&self.data.definition.steps[node.step].name, node.item)
    }
}

impl Saga {
    /// Nothing will happen to it by itself any more.
    pub(super) fn rests(&self) -> bool {
        self.state.ended.is_some() || self.state.parked.is_some()
    }
}

impl Simulation {
    pub(super) fn new(saga: NewSaga, now: DateTime<Utc>, faults: Faults, signals: Vec<(String, Json)>) -> Self {
        let root = Saga::new(saga, 0, now);
        Self {
            sagas: vec![root],
            now,
            published: Arc::default(),
            late: Vec::new(),
            requests: Vec::new(),
            replies: Vec::new(),
            signals,
            left: faults,
            log: Log::default(),
            events: Vec::new(),
            code: "explored",
        }
    }

    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.sagas[0].state.ended
    }

    /// Does what happens without anybody's choice: what follows, what is waited for, what is begun.
    pub(super) fn settle<T: StepTransaction>(&mut self, kinds: &[Kind<T>]) {
        let mut saga = 0;
        while saga < self.sagas.len() {
            // What one saga does may wake any other.
            saga = if self.settle_one(kinds, saga) { 0 } else { saga + 1 };
        }
    }

    fn settle_one<T: StepTransaction>(&mut self, kinds: &[Kind<T>], saga: usize) -> bool {
        let it = &self.sagas[saga];
        let kind = &kinds[it.kind];
        let (definition, state) = (&kind.definition, Arc::clone(&it.state));
        let actions = machine::decide(definition, &state);
        if actions.is_empty() {
            return false;
        }
        let flying = it.flying();
        let follows = plan::follow_ups(definition, &state, &actions, it.circumstances(&flying, self.now));
        let is_over = flying.is_empty() && matches!(actions[0], Action::End(_) | Action::Park(_));
        if !follows.is_empty() || is_over {
            self.append_all(kinds, saga, Vec::new(), Vec::new(), Vec::new());
            return true;
        }
        for action in &actions {
            let event = match action {
                Action::Accept { node, phase } => {
                    waiting::accept(&*kind.make(), definition, &state, *node, *phase, self.now).map(|it| it.event)
                }
                Action::Upcast(step) => {
                    let node = Node { step: *step, item: None };
                    Some(waiting::upcast(&*kind.make(), kind.data(&state, node)))
                }
                Action::Wait(wait) => self.child_ended(definition, wait),
                _ => None,
            };
            if let Some(event) = event {
                self.append(kinds, saga, Done::event(event));
                return true;
            }
        }
        self.launch(kinds, saga, &actions);
        false
    }

    fn child_ended(&self, definition: &crate::Definition, wait: &Wait) -> Option<Event> {
        let child = self.sagas.iter().find(|saga| Some(saga.id) == wait.child)?;
        child::meaning(definition, *wait, &child.state, self.now)
    }

    /// Begins every attempt that is due, as a worker does.
    fn launch<T: StepTransaction>(&mut self, kinds: &[Kind<T>], saga: usize, actions: &[Action]) {
        let now = self.now;
        let it = &mut self.sagas[saga];
        let kind = &kinds[it.kind];
        for action in actions {
            let Some((attempt, phase)) = plan::begins(action, &it.flying(), now) else { continue };
            let data = kind.data(&it.state, attempt.node);
            let is_begun = waiting::is_begun(&kind.definition.steps[attempt.node.step], phase);
            let result = is_begun.then(|| {
                let asker = Asker { saga: it.id, priority: Priority::Normal, trace: None };
                let begun = waiting::begin(&*kind.make(), asker, data.clone(), attempt, phase, now);
                Arc::new(Done::begun(it.id, begun.event, begun.outbox, begun.starts))
            });
            it.owned = true;
            it.flights.push(Flight { attempt, phase, data, result });
        }
    }

    /// Writes what has happened to the saga's journal, with what follows from it.
    pub(super) fn append<T: StepTransaction>(&mut self, kinds: &[Kind<T>], saga: usize, done: Done) {
        self.append_all(kinds, saga, vec![done.event], done.outbox, done.starts);
    }

    fn append_all<T: StepTransaction>(
        &mut self,
        kinds: &[Kind<T>],
        saga: usize,
        happened: Vec<Event>,
        outbox: Vec<OutboxMessage>,
        starts: Vec<NewSaga>,
    ) {
        let it = &mut self.sagas[saga];
        let definition = &kinds[it.kind].definition;
        let flying = it.flying();
        let plan = plan::plan(definition, &it.state, happened, it.circumstances(&flying, self.now));
        if let Some(head) = plan.head {
            it.status = head.status;
            it.owned = !head.release;
        }
        self.write(saga, plan.events);
        for mut message in outbox {
            message.id = crate::MessageId(Uuid::nil());
            if message.headers.contains_key(CORRELATION_HEADER) {
                self.requests.push(Arc::new(message.clone()));
            }
            Arc::make_mut(&mut self.published).push(message);
        }
        for child in starts {
            let kind = kinds.iter().position(|kind| kind.is_of(&child.name, child.version));
            let kind =
                kind.unwrap_or_else(|| panic!("the saga starts `{}`: register it too, with `.child(…)`", child.name));
            self.sagas.push(Saga::new(child, kind, self.now));
        }
    }

    /// Writes exactly these events: what other than a worker writes.
    pub(super) fn write(&mut self, saga: usize, events: Vec<Event>) {
        let it = &mut self.sagas[saga];
        let row = JournalRow { saga: it.id, seq: it.state.seq + 1, events, at: self.now };
        Arc::make_mut(&mut it.state).apply(&row);
        self.log.written(saga, &row.events);
        if saga == 0 && self.log.is_read() {
            self.events.extend(row.events);
        }
    }

    /// Another worker takes over what this one had.
    pub(super) fn adopt(&mut self) {
        for saga in 0..self.sagas.len() {
            let it = &mut self.sagas[saga];
            it.flights.clear();
            if it.owned && !it.rests() {
                self.write(saga, vec![Event::Adopted { by: WorkerId(Uuid::nil()) }]);
            }
        }
    }

    /// When the next thing is due, while nothing is under way.
    pub(super) fn next_due<T: StepTransaction>(&self, kinds: &[Kind<T>]) -> Option<DateTime<Utc>> {
        let actions = |saga: &Saga| machine::decide(&kinds[saga.kind].definition, &saga.state);
        self.sagas.iter().flat_map(actions).filter_map(|action| action.due()?).min()
    }
}

impl Saga {
    fn new(saga: NewSaga, kind: usize, now: DateTime<Utc>) -> Self {
        Self {
            id: saga.id,
            kind,
            state: Arc::new(State::new(saga.input, saga.version, now)),
            status: Status::Running,
            parent: saga.parent,
            owned: false,
            flights: Vec::new(),
        }
    }

    fn flying(&self) -> Vec<(Node, Phase)> {
        self.flights.iter().map(|flight| (flight.attempt.node, flight.phase)).collect()
    }

    fn circumstances<'a>(&self, flying: &'a [(Node, Phase)], now: DateTime<Utc>) -> plan::Circumstances<'a> {
        plan::Circumstances { status: self.status, now, flying, draining: false, is_child: self.parent.is_some() }
    }
}

impl Done {
    pub(super) fn event(event: Event) -> Self {
        Self { event, outbox: Vec::new(), starts: Vec::new() }
    }

    /// What is begun at random elsewhere is the same here in every run.
    fn begun(parent: SagaId, mut event: Event, outbox: Vec<OutboxMessage>, mut starts: Vec<NewSaga>) -> Self {
        if let (Event::Begun { step, attempt, child, .. }, Some(saga)) = (&mut event, starts.first_mut()) {
            saga.id = SagaId(Uuid::new_v5(&parent.0, format!("{step}#{attempt}").as_bytes()));
            *child = Some(saga.id);
        }
        Self { event, outbox, starts }
    }
}
