//! Sagas that are steps of other sagas: what became of one, and undoing it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::definition::{Definition, Step};
use crate::event::{Cause, Event, Outcome, ParkReason, Rejection};
use crate::machine::{Attempt, Phase, Wait, is_past_pivot};
use crate::state::{State, item_name};
use crate::store::{Append, Appended, Head, Status, WorkerStore};
use crate::worker::attempt::Finished;
use crate::worker::clock::Clock;
use crate::worker::failure::Tried;
use crate::worker::insist::insist;
use crate::worker::{Crew, Kind};
use crate::{Json, SagaId, StoreError};

const NO_WAY_BACK: &str = "the saga that this step started is past its pivot, so it cannot be undone";

/// What the end of the saga that is waited for means for the step; `None` while it has not ended.
pub(super) async fn ended<S: WorkerStore>(
    crew: &Crew<S>,
    definition: &Definition,
    wait: Wait,
    now: DateTime<Utc>,
) -> Result<Option<Event>, StoreError> {
    let Some(child) = wait.child else { return Ok(None) };
    let Some(loaded) = insist(crew.stop.clone(), || crew.store.load(child)).await? else { return Ok(None) };
    Ok(meaning(definition, wait, &loaded.fold(), now))
}

pub(crate) fn meaning(definition: &Definition, wait: Wait, child: &State, now: DateTime<Utc>) -> Option<Event> {
    let step = &definition.steps[wait.node.step];
    let name = item_name(&step.name, wait.node.item);
    let tried = Tried { step, phase: wait.phase, attempt: wait.number, since: wait.since };
    match (child.ended, wait.phase) {
        (None, _) => None,
        (Some(Outcome::Compensated), Phase::Undo) => Some(Event::Compensated { step: name }),
        // It was past its pivot when it was to be undone, and has gone on to its end.
        (Some(Outcome::Completed), Phase::Undo) => Some(tried.failed(name, Cause::Data, NO_WAY_BACK, now)),
        (Some(Outcome::Completed), _) => {
            Some(Event::Succeeded { step: name, output: child.output.clone().unwrap_or_else(Json::null) })
        }
        (Some(Outcome::Compensated), _) => {
            Some(Event::Rejected { step: name, attempt: wait.number, rejection: why(child) })
        }
    }
}

/// The reason of a saga that ended compensated, as the rejection of the step that started it.
fn why(state: &State) -> Rejection {
    match (state.rejection(), state.gave_up()) {
        (Some((_, rejection)), _) => rejection.clone(),
        (None, Some((step, error))) => {
            let message = format!("`{step}` gave up: {}", error.unwrap_or_default());
            Rejection { message, ..Rejection::new("child_gave_up") }
        }
        (None, None) => {
            let message = state.cancel_reason.clone().unwrap_or_default();
            Rejection { message, ..Rejection::new("child_cancelled") }
        }
    }
}

/// Asks for the saga that a step started to be undone, also if it has completed.
pub(super) async fn undo<S: WorkerStore>(
    crew: Arc<Crew<S>>,
    kind: Arc<Kind<S::Tx>>,
    parent: SagaId,
    child: Option<SagaId>,
    attempt: Attempt,
    clock: Clock,
) -> Option<Finished<S::Tx>> {
    let step = &kind.definition.steps[attempt.node.step];
    let name = item_name(&step.name, attempt.node.item);
    let done = |event| Some(Finished::event(attempt.node, Phase::Undo, event));
    let Some(child) = child else { return done(Event::Compensated { step: name }) };
    match insist(crew.stop.clone(), || ask(&crew, parent, child)).await {
        Ok(asked) => done(asked.event(step, attempt, child, clock.now())),
        Err(StoreError::Unavailable(_)) => None,
        Err(error) => {
            let tried = Tried { step, phase: Phase::Undo, attempt: attempt.number, since: attempt.since };
            done(tried.failed(name, Cause::Error, &error.to_string(), clock.now()))
        }
    }
}

/// What becomes of a saga that is to be undone because the one that started it is.
pub(crate) enum Asked {
    /// It must be written to its journal that it is to be undone.
    Write(Event),
    /// It knows.
    WillBe,
    /// There is nothing to undo.
    Undone,
    /// It cannot be undone any more.
    PastPivot,
}

impl Asked {
    pub(crate) fn of(definition: Option<&Definition>, child: SagaId, state: &State, parent: SagaId) -> Self {
        // One parent asks once, however often it says so.
        let id = Uuid::new_v5(&child.0, parent.0.as_bytes());
        if state.ended == Some(Outcome::Compensated) {
            Self::Undone
        } else if state.requests.contains(&id) {
            Self::WillBe
        } else if definition.is_some_and(|definition| is_past_pivot(definition, state)) {
            Self::PastPivot
        } else {
            Self::Write(Event::Cancelled { id, reason: format!("saga {parent} is undone"), reopens: true })
        }
    }

    /// What it means for the step that is undone, once it is written.
    pub(crate) fn event(&self, step: &Step, attempt: Attempt, child: SagaId, now: DateTime<Utc>) -> Event {
        let name = item_name(&step.name, attempt.node.item);
        match self {
            Self::Undone => Event::Compensated { step: name },
            Self::PastPivot => {
                let tried = Tried { step, phase: Phase::Undo, attempt: attempt.number, since: attempt.since };
                tried.failed(name, Cause::Data, NO_WAY_BACK, now)
            }
            Self::Write(_) | Self::WillBe => {
                Event::Begun { step: name, undo: true, attempt: attempt.number, within: None, child: Some(child) }
            }
        }
    }
}

async fn ask<S: WorkerStore>(crew: &Crew<S>, parent: SagaId, child: SagaId) -> Result<Asked, StoreError> {
    loop {
        let Some(loaded) = crew.store.load(child).await? else { return Ok(Asked::Undone) };
        let state = loaded.fold();
        let kind = crew.kinds.get(&(loaded.name.clone(), loaded.version));
        let asked = Asked::of(kind.map(|kind| &*kind.definition), child, &state, parent);
        let Asked::Write(event) = &asked else { return Ok(asked) };
        let append = Append::new(child, state.seq + 1, crew.worker, crew.nonce(), vec![event.clone()]);
        let append = Append { head: Some(head(loaded.status, &state)), ..append };
        if let Appended::Done(_) = crew.store.append(append).await? {
            return Ok(asked);
        }
    }
}

/// What is parked stays so, unless going on was what killed its workers.
fn head(status: Status, state: &State) -> Head {
    match &state.parked {
        Some(parked) if !matches!(parked.reason, ParkReason::CrashLoop { .. }) => {
            Head { status, wake_in: None, release: false, parked: Some(parked.fingerprint) }
        }
        _ => Head { status: Status::Compensating, wake_in: Some(Duration::ZERO), release: false, parked: None },
    }
}
