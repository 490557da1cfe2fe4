//! The rows of the memory store: what the tables are in a database.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::event::JournalRow;
use crate::message::OutboxMessage;
use crate::store::{Append, Appended, Claim, Loaded, NewSaga, Started, Status};
use crate::{Error, SagaId, WorkerId};

#[derive(Debug)]
pub(super) struct Rows {
    sagas: BTreeMap<SagaId, SagaRow>,
    keys: HashMap<(String, String), SagaId>,
    pub(super) workers: HashMap<WorkerId, DateTime<Utc>>,
    pub(super) outbox: Vec<OutboxMessage>,
    /// The wall-clock time of the beginning, and tokio's time then, which a test can pause.
    epoch: (DateTime<Utc>, Option<Instant>),
}

#[derive(Debug)]
struct SagaRow {
    saga: NewSaga,
    status: Status,
    wake_at: Option<DateTime<Utc>>,
    owner: Option<WorkerId>,
    journal: Vec<JournalRow>,
    /// Writer and nonce of each journal row.
    writers: Vec<(WorkerId, i64)>,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self {
            sagas: BTreeMap::new(),
            keys: HashMap::new(),
            workers: HashMap::new(),
            outbox: Vec::new(),
            epoch: (Utc::now(), None),
        }
    }

    pub(super) fn now(&mut self) -> DateTime<Utc> {
        let began = *self.epoch.1.get_or_insert_with(Instant::now);
        self.epoch.0 + began.elapsed()
    }

    /// The saga that has the key, if it may be taken for this one.
    pub(super) fn existing(&self, saga: &NewSaga) -> Result<Option<SagaId>, Error> {
        let Some(key) = &saga.key else { return Ok(None) };
        let Some(existing) = self.keys.get(&(saga.name.clone(), key.clone())) else { return Ok(None) };
        self.sagas.get(existing).map(|row| same_start(&row.saga, saga)).transpose()
    }

    pub(super) fn start(&mut self, saga: NewSaga, owner: Option<WorkerId>) -> Result<Started, Error> {
        if let Some(existing) = self.existing(&saga)? {
            return Ok(Started::Existing(existing));
        }
        let id = saga.id;
        if let Some(key) = &saga.key {
            self.keys.insert((saga.name.clone(), key.clone()), id);
        }
        let wake_at = owner.is_none().then(|| self.now());
        let row = SagaRow { saga, status: Status::Running, wake_at, owner, journal: Vec::new(), writers: Vec::new() };
        self.sagas.insert(id, row);
        Ok(Started::New(id))
    }

    pub(super) fn append(&mut self, append: Append) -> Appended {
        let now = self.now();
        let Some(row) = self.sagas.get_mut(&append.saga) else { return Appended::Conflict };
        if append.seq != row.journal.len() as i64 + 1 {
            let written = usize::try_from(append.seq - 1)
                .ok()
                .and_then(|index| Some((row.writers.get(index)?, &row.journal[index])));
            return match written {
                Some((writer, line)) if *writer == (append.writer, append.nonce) => Appended::Done(line.at),
                _ => Appended::Conflict,
            };
        }
        row.journal.push(JournalRow { saga: append.saga, seq: append.seq, events: append.events, at: now });
        row.writers.push((append.writer, append.nonce));
        if let Some(head) = append.head {
            row.status = head.status;
            row.wake_at = head.wake_in.map(|pause| now + pause);
            if head.release {
                row.owner = None;
            }
        }
        self.outbox.extend(append.outbox);
        Appended::Done(now)
    }

    pub(super) fn claim(&mut self, claim: &Claim) -> Vec<Loaded> {
        let now = self.now();
        let mut taken = Vec::new();
        let is_lost = |row: &SagaRow| claim.sweep && !row.status.is_final() && !claim.driven.contains(&row.saga.id);
        let is_wanted = |row: &SagaRow| row.owner == Some(claim.worker) && (is_due(row, now) || is_lost(row));
        for row in self.sagas.values_mut().filter(|row| is_wanted(row)) {
            row.wake_at = None;
            taken.push(row.saga.id);
        }
        let mut room = (claim.limit, claim.forward_limit);
        for lane in [Status::Compensating, Status::Running] {
            for row in self.sagas.values_mut() {
                let limit = if lane == Status::Running { room.0.min(room.1) } else { room.0 };
                let wanted = row.owner.is_none() && row.status == lane && is_due(row, now) && is_registered(row, claim);
                if wanted && limit > 0 {
                    row.owner = Some(claim.worker);
                    row.wake_at = None;
                    room.0 -= 1;
                    if lane == Status::Running {
                        room.1 -= 1;
                    }
                    taken.push(row.saga.id);
                }
            }
        }
        taken.into_iter().filter_map(|saga| self.load(saga)).collect()
    }

    /// Sagas of dead workers, with the last row of each journal.
    pub(super) fn orphans(&mut self, claim: &Claim) -> Vec<(SagaId, i64)> {
        let now = self.now();
        let workers = &self.workers;
        let is_dead = |owner: WorkerId| workers.get(&owner).is_none_or(|expires| *expires <= now);
        let orphans = self
            .sagas
            .values()
            .filter(|row| !row.status.is_final() && row.owner.is_some_and(is_dead) && is_registered(row, claim));
        orphans.take(claim.limit).map(|row| (row.saga.id, row.journal.len() as i64)).collect()
    }

    pub(super) fn own(&mut self, saga: SagaId, worker: WorkerId) -> bool {
        let Some(row) = self.sagas.get_mut(&saga) else { return false };
        row.owner = Some(worker);
        row.wake_at = None;
        true
    }

    pub(super) fn release(&mut self, worker: WorkerId, saga: SagaId, wake_in: Option<Duration>) {
        let now = self.now();
        if let Some(row) = self.sagas.get_mut(&saga).filter(|row| row.owner == Some(worker)) {
            row.owner = None;
            // Somebody may have written from outside meanwhile; then it stays due.
            let wake_at = wake_in.map(|pause| now + pause);
            row.wake_at = row.wake_at.into_iter().chain(wake_at).min();
        }
    }

    pub(super) fn load(&mut self, saga: SagaId) -> Option<Loaded> {
        let now = self.now();
        let row = self.sagas.get(&saga)?;
        Some(Loaded {
            id: saga,
            name: row.saga.name.clone(),
            version: row.saga.version,
            fingerprint: row.saga.fingerprint,
            input: row.saga.input.clone(),
            trace: row.saga.trace.clone(),
            status: row.status,
            journal: row.journal.clone(),
            now,
            owner: row.owner,
        })
    }
}

fn is_due(row: &SagaRow, now: DateTime<Utc>) -> bool {
    row.wake_at.is_some_and(|wake_at| wake_at <= now)
}

fn is_registered(row: &SagaRow, claim: &Claim) -> bool {
    claim.registered.iter().any(|(name, version)| *name == row.saga.name && *version == row.saga.version)
}

/// The earlier saga, if it may be taken for the one that is to be started with the same key.
pub(super) fn same_start(earlier: &NewSaga, saga: &NewSaga) -> Result<SagaId, Error> {
    if same_json(earlier, saga) { Ok(earlier.id) } else { Err(conflict(saga, earlier.id)) }
}

pub(super) fn conflict(saga: &NewSaga, existing: SagaId) -> Error {
    Error::KeyConflict { name: saga.name.clone(), key: saga.key.clone().unwrap_or_default(), existing }
}

/// Inputs are compared as values, as `jsonb` would: white space and the order of fields do not matter.
fn same_json(a: &NewSaga, b: &NewSaga) -> bool {
    let value = |saga: &NewSaga| saga.input.decode::<serde_json::Value>().ok();
    value(a) == value(b)
}
