//! What tells two moments of an exploration apart: two with the same digest have the same future.

use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::{DateTime, Utc};

use super::Environment;
use super::simulation::{Saga, Simulation};
use super::stage::Stage;
use crate::definition::Definition;
use crate::machine;
use crate::state::{Attempts, Forward, State, StepState, Undo, Waiting};

/// A 128-bit digest, so that two moments are never taken for one by chance. `None` if the world cannot be hashed.
pub(super) async fn digest<E: Environment>(simulation: &Simulation, stage: &mut Stage<E>) -> Option<u128> {
    let mut bytes = Bytes(Vec::with_capacity(4096));
    if !stage.prunes || !stage.env.hash(&mut bytes).await {
        return None;
    }
    for saga in &simulation.sagas {
        normal(&saga.state, &stage.kinds[saga.kind].definition, simulation.now).hash(&mut bytes);
        hash_saga(saga, &mut bytes);
    }
    simulation.hash_rest(&mut bytes);
    let (mut low, mut high) = (DefaultHasher::new(), DefaultHasher::new());
    high.write_u8(1);
    low.write(&bytes.0);
    high.write(&bytes.0);
    Some(u128::from(low.finish()) << 64 | u128::from(high.finish()))
}

/// Gathers what is hashed: to hash it all at once, twice, is faster than each small piece by itself.
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

fn hash_saga(saga: &Saga, hasher: &mut Bytes) {
    (saga.id, saga.owned, saga.flights.len()).hash(hasher);
    for flight in &saga.flights {
        (flight.attempt.node, flight.attempt.number, flight.phase).hash(hasher);
        flight.result.as_ref().map(|result| &result.event).hash(hasher);
    }
}

impl Simulation {
    fn hash_rest(&self, hasher: &mut Bytes) {
        for message in self.published.iter() {
            (&message.topic, &message.name, &message.key, &message.headers, &message.payload).hash(hasher);
        }
        for late in &self.late {
            (late.saga, late.flight.attempt.node, late.flight.attempt.number, late.flight.phase).hash(hasher);
        }
        for request in &self.requests {
            (&request.name, &request.headers, &request.payload).hash(hasher);
        }
        (&self.replies, &self.signals, &self.left).hash(hasher);
    }
}

/// The state with rows counted by rank and times from now, since only their order and distance matter. An adoption counts
/// only for what was ready before it and has no verdict yet.
fn normal(state: &State, definition: &Definition, now: DateTime<Utc>) -> State {
    let mut state = state.clone();
    if !machine::adoption_matters(definition, &state) {
        state.adopted_at = 0;
    }
    machine::forget_older_adoptions(definition, &mut state);
    state.seq = 0;
    let mut rows = Vec::new();
    each_mark(&mut state, &mut |row, _| rows.push(*row));
    rows.sort_unstable();
    rows.dedup();
    each_mark(&mut state, &mut |row, at| {
        *row = rows.binary_search(row).map_or(*row, |rank| rank as i64);
        if let Some(at) = at {
            *at = DateTime::UNIX_EPOCH + (*at - now);
        }
    });
    state
}

/// Visits every row number in the state, with its time.
fn each_mark(state: &mut State, visit: &mut impl FnMut(&mut i64, Option<&mut DateTime<Utc>>)) {
    let time = |visit: &mut dyn FnMut(&mut i64, Option<&mut DateTime<Utc>>), at: &mut DateTime<Utc>| {
        visit(&mut 0, Some(at));
    };
    time(visit, &mut state.started_at);
    if let Some(parked) = &mut state.parked {
        time(visit, &mut parked.at);
    }
    visit(&mut state.adopted_at, None);
    if let Some(row) = &mut state.cancelled_at {
        visit(row, None);
    }
    let failed = state.failed.values_mut().chain(state.diverted.values_mut()).chain(&mut state.failing_since);
    failed.for_each(|(row, at)| visit(row, Some(at)));
    if let Some((row, (since, at))) = &mut state.forgiven {
        visit(row, None);
        visit(since, Some(at));
    }
    for (_, (since, at), row) in &mut state.sent_on {
        visit(since, Some(at));
        visit(row, None);
    }
    for fan in state.fans.values_mut() {
        visit(&mut fan.seq, Some(&mut fan.at));
        fan.items.iter_mut().for_each(|item| each_mark_of_step(item, visit));
    }
    state.steps.values_mut().for_each(|step| each_mark_of_step(step, visit));
}

fn each_mark_of_step(step: &mut StepState, visit: &mut impl FnMut(&mut i64, Option<&mut DateTime<Utc>>)) {
    if let Some((row, at)) = &mut step.done {
        visit(row, Some(at));
    }
    match &mut step.forward {
        Forward::Pending(attempts) => each_time(attempts, visit),
        Forward::Waiting(waiting) => each_mark_of_wait(waiting, visit),
        Forward::Succeeded { seq, at, .. } => visit(seq, Some(at)),
        Forward::Skipped { adopted_at, seq, at, .. } => {
            visit(adopted_at, None);
            visit(seq, Some(at));
        }
        Forward::Rejected { adopted_at, seq, .. } => {
            visit(adopted_at, None);
            visit(seq, None);
        }
        Forward::GaveUp { seq, .. } | Forward::Absent { seq } => visit(seq, None),
    }
    for undo in [&mut step.undo, &mut step.probe] {
        match undo {
            Undo::Pending(attempts) => each_time(attempts, visit),
            Undo::Waiting(waiting) => each_mark_of_wait(waiting, visit),
            Undo::Done | Undo::GaveUp { .. } => {}
        }
    }
}

fn each_mark_of_wait(waiting: &mut Waiting, visit: &mut impl FnMut(&mut i64, Option<&mut DateTime<Utc>>)) {
    visit(&mut waiting.seq, waiting.until.as_mut());
    if let Some(since) = &mut waiting.since {
        visit(&mut 0, Some(since));
    }
}

fn each_time(attempts: &mut Attempts, visit: &mut impl FnMut(&mut i64, Option<&mut DateTime<Utc>>)) {
    for at in attempts.due.iter_mut().chain(&mut attempts.since) {
        visit(&mut 0, Some(at));
    }
}
