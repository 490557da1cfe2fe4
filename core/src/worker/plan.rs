//! What an append carries beyond what has happened: what follows from it, the end, the pause, the change of lane. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::definition::Definition;
use crate::event::{Cause, Event, JournalRow, Outcome};
use crate::machine::{self, Action, Attempt, Direction, Node, Phase};
use crate::state::{State, item_name};
use crate::store::{Head, Status};
use crate::worker::failure::Tried;
use crate::{SagaId, list};

/// A retry that is due this soon is waited for; a later one is left to the database.
pub(crate) const WORTH_WAITING: Duration = Duration::from_millis(20);

/// Where the worker stands when it plans an append.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    /// The status in the head row.
    pub(crate) status: Status,
    /// The time, by the database's clock.
    pub(crate) now: DateTime<Utc>,
    /// What else of this saga is under way.
    pub(crate) flying: &'a [(Node, Phase)],
    /// The worker wants to stop.
    pub(crate) draining: bool,
    /// Another saga waits for this one's output.
    pub(crate) is_child: bool,
}

/// The events and the head change of one append.
pub(crate) struct Plan {
    pub(crate) events: Vec<Event>,
    pub(crate) head: Option<Head>,
}

/// Completes the events that have happened by what follows from them.
pub(crate) fn plan(definition: &Definition, state: &State, happened: Vec<Event>, at: Circumstances<'_>) -> Plan {
    let mut after = state.clone();
    let mut row = JournalRow { saga: SagaId(uuid::Uuid::nil()), seq: state.seq + 1, events: happened, at: at.now };
    let mut events = Vec::new();
    let actions = loop {
        after.apply(&row);
        events.append(&mut row.events);
        let actions = machine::decide(definition, &after);
        row.events = follow_ups(definition, &after, &actions, at);
        if row.events.is_empty() {
            break actions;
        }
    };
    let status = match machine::direction(definition, &after) {
        Direction::Forward => Status::Running,
        Direction::Backward => Status::Compensating,
    };
    let stay = |wake_in, release| Head { status, wake_in, release, parked: None };
    let head = match actions.first() {
        // Nothing ends or parks while an attempt is under way: its outcome may still change what follows.
        _ if !at.flying.is_empty() => (status != at.status).then(|| stay(None, false)),
        Some(Action::End(outcome)) => {
            let output = if at.is_child { output(definition, &after, *outcome) } else { None };
            events.push(Event::Ended { outcome: *outcome, output });
            let status = match outcome {
                Outcome::Completed => Status::Completed,
                Outcome::Compensated => Status::Compensated,
            };
            Some(Head { status, wake_in: None, release: true, parked: None })
        }
        Some(Action::Park(reason)) => {
            let error = reason.step().and_then(|step| after.named(step)?.error.as_deref()).unwrap_or_default();
            let fingerprint = reason.fingerprint(&definition.name, error);
            events.push(Event::Parked { reason: reason.clone(), fingerprint });
            Some(Head { status: Status::Parked, wake_in: None, release: true, parked: Some(fingerprint) })
        }
        Some(_) if at.draining => Some(stay(Some(Duration::ZERO), true)),
        Some(_) => match pause(&actions, at.now) {
            Pause::For(pause) if pause > WORTH_WAITING => Some(stay(Some(pause), true)),
            // A saga that it waits for may have ended before it began to wait.
            Pause::ForEver if waits_for_no_saga(&actions) => Some(stay(None, true)),
            _ => (status != at.status).then(|| stay(None, false)),
        },
        // Somebody made it due, but what it is parked over has not been settled.
        None => after.parked.as_ref().filter(|_| at.status != Status::Parked).map(|parked| Head {
            status: Status::Parked,
            wake_in: None,
            release: true,
            parked: Some(parked.fingerprint),
        }),
    };
    Plan { events, head }
}

/// What is true by now without anybody's doing: no body need be called for it.
pub(crate) fn follow_ups(
    definition: &Definition,
    state: &State,
    actions: &[Action],
    at: Circumstances<'_>,
) -> Vec<Event> {
    let follow_up = |action: &Action| match action {
        Action::FanOut(step) => Some(fan_out(definition, state, *step, at.now)),
        Action::Divert { step, abandoned } if at.flying.is_empty() => {
            Some(Event::Diverted { step: definition.steps[*step].name.to_string(), abandoned: abandoned.clone() })
        }
        Action::Expire(due) if *due <= at.now => Some(Event::DeadlinePassed),
        // An answer that is about to be recorded came in time.
        Action::Wait(wait)
            if wait.until.is_some_and(|until| until <= at.now) && !at.flying.contains(&(wait.node, wait.phase)) =>
        {
            let step = &definition.steps[wait.node.step];
            let tried = Tried { step, phase: wait.phase, attempt: wait.number, since: wait.since };
            let name = item_name(&step.name, wait.node.item);
            Some(tried.failed(name, Cause::Timeout, "no answer came in time", at.now))
        }
        _ => None,
    };
    actions.iter().filter_map(follow_up).collect()
}

fn fan_out(definition: &Definition, state: &State, step: usize, now: DateTime<Utc>) -> Event {
    let it = &definition.steps[step];
    let name = it.name.to_string();
    match list::items(definition, state, step) {
        Ok(items) => Event::FannedOut { step: name, items: items.len() as u32 },
        Err(error) => {
            let tried = Tried { step: it, phase: Phase::Forward, attempt: 1, since: None };
            let over = it.for_each.as_ref().map_or("", |each| &each.over);
            tried.failed(name, Cause::Data, &format!("`{over}` is no list that a step can run over: {error}"), now)
        }
    }
}

fn output(definition: &Definition, state: &State, outcome: Outcome) -> Option<crate::Json> {
    let last = definition.steps.len().checked_sub(1).filter(|_| outcome == Outcome::Completed)?;
    list::output(definition, state, last, None).ok().flatten()
}

/// The attempt that begins now, if one does, while these are under way.
pub(crate) fn begins(action: &Action, flying: &[(Node, Phase)], now: DateTime<Utc>) -> Option<(Attempt, Phase)> {
    let (attempt, phase, hindered) = match action {
        // A step that may turn out to have happened is not begun once more meanwhile.
        Action::Run(attempt) => (*attempt, Phase::Forward, flying.contains(&(attempt.node, Phase::Probe))),
        // While the attempt itself is under way nobody can say that it will not happen.
        Action::Probe(attempt) => (*attempt, Phase::Probe, flying.contains(&(attempt.node, Phase::Forward))),
        // Nothing is undone while a forward attempt is under way.
        Action::Compensate(attempt) => (*attempt, Phase::Undo, flying.iter().any(|(_, phase)| *phase != Phase::Undo)),
        _ => return None,
    };
    let is_free = !hindered && !flying.contains(&(attempt.node, phase));
    (is_free && attempt.due.is_none_or(|due| due <= now)).then_some((attempt, phase))
}

/// How long until there is something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    None,
    For(Duration),
    /// Until something comes from outside.
    ForEver,
}

/// How long until the first of these actions is due.
pub(crate) fn pause(actions: &[Action], now: DateTime<Utc>) -> Pause {
    // At once sorts before every time.
    match actions.iter().filter_map(Action::due).min() {
        None => Pause::ForEver,
        Some(None) => Pause::None,
        Some(Some(due)) => Pause::For((due - now).to_std().unwrap_or_default()),
    }
}

fn waits_for_no_saga(actions: &[Action]) -> bool {
    !actions.iter().any(|action| matches!(action, Action::Wait(wait) if wait.child.is_some()))
}
