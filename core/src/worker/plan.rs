//! What an append carries beyond what has happened: the end, the pause, the change of lane. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::SagaId;
use crate::definition::Definition;
use crate::event::{Event, JournalRow, Outcome};
use crate::machine::{self, Action, Direction};
use crate::state::State;
use crate::store::{Head, Status};

/// A retry that is due this soon is waited for; a later one is left to the database.
pub(super) const WORTH_WAITING: Duration = Duration::from_millis(20);

/// Where the worker stands when it plans an append.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// The status in the head row.
    pub(super) status: Status,
    /// The time, by the database's clock.
    pub(super) now: DateTime<Utc>,
    /// No other attempt of this saga is under way.
    pub(super) idle: bool,
    /// The worker wants to stop.
    pub(super) draining: bool,
}

/// The events and the head change of one append.
pub(super) struct Plan {
    pub(super) events: Vec<Event>,
    pub(super) head: Option<Head>,
}

/// Completes the events that have happened by what follows from them.
pub(super) fn plan(definition: &Definition, state: &State, happened: Vec<Event>, at: Circumstances) -> Plan {
    let mut events = happened;
    let mut after = state.clone();
    let row = JournalRow { saga: SagaId(uuid::Uuid::nil()), seq: state.seq + 1, events, at: at.now };
    after.apply(&row);
    events = row.events;

    let actions = machine::decide(definition, &after);
    let status = match machine::direction(definition, &after) {
        Direction::Forward => Status::Running,
        Direction::Backward => Status::Compensating,
    };
    let head = match actions.first() {
        // Nothing ends or parks while an attempt is under way: its outcome may still change what follows.
        _ if !at.idle => (status != at.status).then_some(Head { status, wake_in: None, release: false }),
        Some(Action::End(outcome)) => {
            events.push(Event::Ended { outcome: *outcome });
            Some(over(match outcome {
                Outcome::Completed => Status::Completed,
                Outcome::Compensated => Status::Compensated,
            }))
        }
        Some(Action::Park(reason)) => {
            events.push(Event::Parked { reason: reason.clone() });
            Some(over(Status::Parked))
        }
        Some(_) if at.draining => Some(Head { status, wake_in: Some(Duration::ZERO), release: true }),
        Some(_) => match pause(&actions, at.now) {
            Some(pause) if pause > WORTH_WAITING => Some(Head { status, wake_in: Some(pause), release: true }),
            _ => (status != at.status).then_some(Head { status, wake_in: None, release: false }),
        },
        None => None,
    };
    Plan { events, head }
}

/// How long until the first of these actions is due; `None` is at once.
pub(super) fn pause(actions: &[Action], now: DateTime<Utc>) -> Option<Duration> {
    let dues = actions.iter().map(|action| match action {
        Action::Run(attempt) | Action::Compensate(attempt) => attempt.due,
        Action::Park(_) | Action::End(_) => None,
    });
    // `None` sorts first: one action that is due at once means no pause.
    dues.min().flatten().map(|due| (due - now).to_std().unwrap_or_default())
}

fn over(status: Status) -> Head {
    Head { status, wake_in: None, release: true }
}
