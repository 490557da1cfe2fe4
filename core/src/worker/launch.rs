//! What a saga begins: its attempts, what needs nobody else, a look at the sagas that it waits for.

use std::sync::Arc;

use tokio::time::Instant;

use crate::StoreError;
use crate::definition::StepKind;
use crate::machine::{Action, Attempt, Node, Phase, Wait};
use crate::saga::Data;
use crate::store::WorkerStore;
use crate::worker::attempt::{self, Finished, Run, body_kind};
use crate::worker::drive::Drive;
use crate::worker::plan::{WORTH_WAITING, begins};
use crate::worker::{child, waiting};

impl<S: WorkerStore> Drive<S> {
    /// Starts every attempt that is due and not under way.
    pub(super) fn launch(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Accept { node, phase } if !self.is_flying(*node, *phase) => {
                    let now = self.clock.now();
                    let finished =
                        waiting::accept(&*self.kind.steps, &self.kind.definition, &self.state, *node, *phase, now);
                    self.land(*node, *phase, finished);
                }
                Action::Upcast(step) => {
                    let node = Node { step: *step, item: None };
                    if !self.is_flying(node, Phase::Forward) {
                        let event = waiting::upcast(&*self.kind.steps, self.data(node));
                        self.land(node, Phase::Forward, Some(Finished::event(node, Phase::Forward, event)));
                    }
                }
                action => {
                    if let Some((attempt, phase)) = begins(action, &self.flying, self.clock.now()) {
                        self.start(attempt, phase);
                    }
                }
            }
        }
    }

    /// What needed nobody else has an outcome at once.
    pub(super) fn land(&mut self, node: Node, phase: Phase, finished: Option<Finished<S::Tx>>) {
        if let Some(finished) = finished {
            self.flying.push((node, phase));
            self.landed.push_back(finished);
        }
    }

    pub(super) fn is_flying(&self, node: Node, phase: Phase) -> bool {
        self.flying.contains(&(node, phase))
    }

    pub(super) fn forward_flying(&self) -> bool {
        self.flying.iter().any(|(_, phase)| *phase != Phase::Undo)
    }

    pub(super) fn data(&self, node: Node) -> Data {
        Data { definition: Arc::clone(&self.kind.definition), state: Arc::clone(&self.state), node }
    }

    pub(super) fn start(&mut self, attempt: Attempt, phase: Phase) {
        let step = &self.kind.definition.steps[attempt.node.step];
        if waiting::is_begun(step, phase) {
            let asker = waiting::Asker { saga: self.saga, priority: self.priority, trace: self.trace.as_deref() };
            let finished =
                waiting::begin(&*self.kind.steps, asker, self.data(attempt.node), attempt, phase, self.clock.now());
            return self.land(attempt.node, phase, Some(finished));
        }
        self.flying.push((attempt.node, phase));
        let kind = body_kind(step, phase);
        if kind == StepKind::Child {
            let child = self.state.record(&step.name, attempt.node.item).and_then(|record| record.child);
            let undo =
                child::undo(Arc::clone(&self.crew), Arc::clone(&self.kind), self.saga, child, attempt, self.clock);
            return self.running.push(Box::pin(undo));
        }
        let run = Run {
            store: Arc::clone(&self.crew.store),
            kind: Arc::clone(&self.kind),
            saga: self.saga,
            trace: self.trace.clone(),
            data: self.data(attempt.node),
            attempt,
            phase,
            clock: self.clock,
            stop: self.crew.stop.clone(),
        };
        self.running.push(match kind {
            // Its own task: `begin` must not be cancelled half-way, even when this saga is dropped.
            StepKind::Tx => {
                let task = self.crew.tasks.spawn(attempt::run(run));
                Box::pin(async move { task.await.ok().flatten() })
            }
            _ => Box::pin(attempt::run(run)),
        });
    }

    /// Looks whether the sagas that are waited for have ended.
    pub(super) async fn look_at_others(&mut self, actions: &[Action]) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.look) {
            return Ok(());
        }
        let waits: Vec<Wait> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Wait(wait) if wait.child.is_some() && !self.is_flying(wait.node, wait.phase) => Some(*wait),
                _ => None,
            })
            .collect();
        for wait in waits {
            let (crew, definition) = (Arc::clone(&self.crew), Arc::clone(&self.kind.definition));
            let now = self.clock.now();
            let ended = self.meanwhile(async move { child::ended(&crew, &definition, wait, now).await }).await;
            match ended {
                Ok(event) => {
                    let finished = event.map(|event| Finished::event(wait.node, wait.phase, event));
                    self.land(wait.node, wait.phase, finished);
                }
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// When the next attempt that waits is due, if any does.
    pub(super) fn next_due(&self, actions: &[Action]) -> Option<Instant> {
        let waits = actions.iter().filter(|action| match action {
            Action::Run(attempt) | Action::Probe(attempt) => {
                ![Phase::Forward, Phase::Probe].iter().any(|it| self.is_flying(attempt.node, *it))
            }
            Action::Compensate(attempt) => !self.forward_flying() && !self.is_flying(attempt.node, Phase::Undo),
            Action::Wait(wait) => !self.is_flying(wait.node, wait.phase),
            Action::Expire(_) => true,
            _ => false,
        });
        waits.filter_map(|action| action.due()?).min().map(|due| self.clock.instant_of(due))
    }

    /// What is due so soon is waited for here; the rest is left to the database.
    pub(super) fn is_due_soon(&self, actions: &[Action]) -> bool {
        self.next_due(actions).is_some_and(|due| due <= Instant::now() + WORTH_WAITING)
    }
}
