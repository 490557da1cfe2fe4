//! The rows of the memory store: what the tables are in a database.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use crate::event::JournalRow;
use crate::message::OutboxMessage;
use crate::retry::LONGEST_PAUSE;
use crate::store::{Append, Appended, Claim, Loaded, NewSaga, Started, Status};
use crate::{Error, SagaId, StoreError, WorkerId};

#[derive(Debug)]
pub(super) struct Rows {
    sagas: BTreeMap<SagaId, SagaRow>,
    keys: HashMap<(String, String), SagaId>,
    /// Who holds a lock, of a name and key; whoever has ended holds none.
    locks: HashMap<(String, String), SagaId>,
    pub(super) schedules: HashMap<String, (String, DateTime<Utc>)>,
    pub(super) workers: HashMap<WorkerId, DateTime<Utc>>,
    pub(super) outbox: Vec<OutboxMessage>,
    /// The wall-clock time of the beginning, and tokio's time then, which a test can pause.
    epoch: (DateTime<Utc>, Option<Instant>),
}

#[derive(Debug)]
struct SagaRow {
    saga: NewSaga,
    started_at: DateTime<Utc>,
    parked: Option<Uuid>,
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
            locks: HashMap::new(),
            schedules: HashMap::new(),
            workers: HashMap::new(),
            outbox: Vec::new(),
            epoch: (Utc::now(), None),
        }
    }

    pub(super) fn now(&mut self) -> DateTime<Utc> {
        let began = *self.epoch.1.get_or_insert_with(Instant::now);
        self.epoch.0 + began.elapsed()
    }

    /// Whether it was started already: by the very same start, whose answer was lost, or by another with its key.
    pub(super) fn find(&self, saga: &NewSaga) -> Result<Option<Started>, Error> {
        if self.sagas.contains_key(&saga.id) {
            return Ok(Some(Started::New(saga.id)));
        }
        let Some(key) = &saga.key else { return Ok(None) };
        let Some(existing) = self.keys.get(&(saga.name.clone(), key.clone())) else { return Ok(None) };
        self.sagas.get(existing).map(|row| same_start(&row.saga, saga).map(Started::Existing)).transpose()
    }

    pub(super) fn start(&mut self, saga: NewSaga, owner: Option<WorkerId>) -> Result<Started, Error> {
        if let Some(found) = self.find(&saga)? {
            return Ok(found);
        }
        self.check_lock(&saga)?;
        let id = saga.id;
        self.insert(saga, owner);
        Ok(Started::New(id))
    }

    /// It was not started before, and its lock is not refused to it.
    pub(super) fn insert(&mut self, saga: NewSaga, owner: Option<WorkerId>) {
        let id = saga.id;
        if let Some(key) = &saga.key {
            self.keys.insert((saga.name.clone(), key.clone()), id);
        }
        let started_at = self.now();
        let row = SagaRow {
            saga,
            started_at,
            parked: None,
            status: Status::Running,
            wake_at: owner.is_none().then_some(started_at),
            owner,
            journal: Vec::new(),
            writers: Vec::new(),
        };
        self.sagas.insert(id, row);
    }

    pub(super) fn append(&mut self, append: Append) -> Result<Appended, StoreError> {
        if append.starts.iter().any(|saga| saga.key.is_some() || saga.lock.is_some()) {
            // As in a database, where its start might have to wait for another transaction.
            return Err(StoreError::Refused("a saga that another one starts has no business key and no lock".into()));
        }
        let now = self.now();
        let is_there = append.starts.iter().any(|saga| self.sagas.contains_key(&saga.id));
        let Some(row) = self.sagas.get_mut(&append.saga) else { return Ok(Appended::Conflict) };
        if append.seq != row.journal.len() as i64 + 1 {
            let written = usize::try_from(append.seq - 1)
                .ok()
                .and_then(|index| Some((row.writers.get(index)?, &row.journal[index])));
            return Ok(match written {
                Some((writer, line)) if *writer == (append.writer, append.nonce) => Appended::Done(line.at),
                _ => Appended::Conflict,
            });
        }
        if is_there {
            return Err(StoreError::Refused("a saga that it starts is there already".into()));
        }
        row.journal.push(JournalRow { saga: append.saga, seq: append.seq, events: append.events, at: now });
        row.writers.push((append.writer, append.nonce));
        if let Some(head) = append.head {
            row.status = head.status;
            row.parked = head.parked;
            // What was made due from outside meanwhile stays due.
            let wake_at = head.wake_in.map(|pause| now + pause.min(LONGEST_PAUSE));
            row.wake_at = row.wake_at.into_iter().chain(wake_at).min().filter(|_| !head.status.is_final());
            if head.release {
                row.owner = None;
            }
        }
        self.outbox.extend(append.outbox);
        for saga in append.starts {
            // They have neither keys nor locks that could be taken.
            let _ = self.start(saga, None);
        }
        if let Some(row) = append.wakes.and_then(|saga| self.sagas.get_mut(&saga)).filter(|row| !row.status.is_final())
        {
            row.wake_at = Some(now);
        }
        Ok(Appended::Done(now))
    }

    pub(super) fn claim(&mut self, claim: &Claim) -> Vec<Loaded> {
        let now = self.now();
        let mut taken = Vec::new();
        let is_lost = |row: &SagaRow| claim.sweep && !row.status.is_final() && !claim.driven.contains(&row.saga.id);
        let is_wanted = |row: &SagaRow| row.owner == Some(claim.worker) && (is_due(row, now) || is_lost(row));
        for row in self.sagas.values_mut().filter(|row| is_wanted(row)) {
            // Its owner may be letting go of it at this moment, and would not hear of this.
            row.wake_at = Some(now + LOOK_AGAIN);
            taken.push(row.saga.id);
        }
        let mut room = (claim.limit, claim.forward_limit);
        let mut places = self.places_left(claim);
        let mut due: Vec<_> = self
            .sagas
            .values_mut()
            .filter(|row| row.owner.is_none() && is_due(row, now) && is_registered(row, claim))
            .filter(|row| matches!(row.status, Status::Compensating | Status::Running))
            .collect();
        let turn = |row: &SagaRow| claim.registered.iter().position(|(name, version)| is_of(row, name, *version));
        due.sort_by_key(|row| (row.status == Status::Running, Reverse(row.saga.priority), turn(row), row.wake_at));
        for row in due {
            let limit = if row.status == Status::Running { room.0.min(room.1) } else { room.0 };
            let places = places.get_mut(&row.saga.name).filter(|_| row.status == Status::Running);
            if limit == 0 || places.as_deref() == Some(&0) {
                continue;
            }
            if let Some(places) = places {
                *places -= 1;
            }
            row.owner = Some(claim.worker);
            row.wake_at = None;
            room.0 -= 1;
            if row.status == Status::Running {
                room.1 -= 1;
            }
            taken.push(row.saga.id);
        }
        taken.into_iter().filter_map(|saga| self.load(saga)).collect()
    }

    /// How many more sagas of the names that are bounded may go forward.
    fn places_left(&self, claim: &Claim) -> HashMap<String, u32> {
        let taken = |name: &str| {
            let goes = |row: &&SagaRow| row.saga.name == name && row.owner.is_some() && row.status == Status::Running;
            self.sagas.values().filter(goes).count() as u32
        };
        claim.bounds.iter().map(|(name, most)| (name.clone(), most.saturating_sub(taken(name)))).collect()
    }

    /// Sagas of dead workers, with the last row of each journal.
    pub(super) fn orphans(&mut self, claim: &Claim) -> Vec<(SagaId, i64)> {
        let now = self.now();
        let workers = &self.workers;
        let is_dead = |owner: WorkerId| workers.get(&owner).is_some_and(|expires| *expires <= now);
        let mut orphans: Vec<_> = self
            .sagas
            .values()
            .filter(|row| !row.status.is_final() && row.owner.is_some_and(is_dead) && is_registered(row, claim))
            .collect();
        orphans.sort_by_key(|row| (row.status != Status::Compensating, Reverse(row.saga.priority)));
        orphans.into_iter().take(claim.limit).map(|row| (row.saga.id, row.journal.len() as i64)).collect()
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
            let wake_at = wake_in.map(|pause| now + pause.min(LONGEST_PAUSE));
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
            started_at: row.started_at,
            priority: row.saga.priority,
            parent: row.saga.parent,
            lock: row.saga.lock.as_ref().map(|lock| lock.key.clone()),
        })
    }

    /// A start that does not wait is refused while another live saga has the lock or waits for it.
    pub(super) fn check_lock(&self, saga: &NewSaga) -> Result<(), Error> {
        let Some(lock) = saga.lock.as_ref().filter(|lock| lock.refuse) else { return Ok(()) };
        match self.in_line(&saga.name, &lock.key).next() {
            Some(holder) => {
                Err(Error::Locked { name: saga.name.clone(), lock: lock.key.clone(), holder: holder.saga.id })
            }
            None => Ok(()),
        }
    }

    /// The live sagas with a lock, in the order of their starts.
    fn in_line(&self, name: &str, key: &str) -> impl Iterator<Item = &SagaRow> {
        self.sagas.values().filter(move |row| {
            !row.status.is_final()
                && row.saga.name == name
                && row.saga.lock.as_ref().is_some_and(|lock| lock.key == key)
        })
    }

    pub(super) fn lock(&mut self, saga: SagaId) -> bool {
        let Some(row) = self.sagas.get(&saga) else { return false };
        let Some(lock) = &row.saga.lock else { return false };
        let lock = (row.saga.name.clone(), lock.key.clone());
        let holder = self.locks.get(&lock).copied().filter(|holder| !self.has_ended(*holder));
        let first = self.in_line(&lock.0, &lock.1).next().map(|row| row.saga.id);
        let is_mine = holder.or(first) == Some(saga);
        if is_mine {
            self.locks.insert(lock, saga);
        }
        is_mine
    }

    pub(super) fn pass_lock(&mut self, saga: SagaId) {
        let now = self.now();
        let Some(row) = self.sagas.get(&saga) else { return };
        let Some(lock) = &row.saga.lock else { return };
        let next = self.in_line(&row.saga.name, &lock.key).next().map(|row| row.saga.id);
        if let Some(row) = next.and_then(|next| self.sagas.get_mut(&next)) {
            row.wake_at = Some(now);
        }
    }

    pub(super) fn has_ended(&self, saga: SagaId) -> bool {
        self.sagas.get(&saga).is_none_or(|row| row.status.is_final())
    }

    pub(super) fn live(
        &mut self,
        names: &[String],
        fingerprints: &[Uuid],
        after: Option<SagaId>,
        limit: usize,
    ) -> Vec<Loaded> {
        let is_wanted = |row: &SagaRow| {
            !row.status.is_final()
                && names.contains(&row.saga.name)
                && !fingerprints.contains(&row.saga.fingerprint)
                && after.is_none_or(|after| row.saga.id > after)
        };
        let sagas: Vec<_> =
            self.sagas.values().filter(|row| is_wanted(row)).map(|row| row.saga.id).take(limit).collect();
        sagas.into_iter().filter_map(|saga| self.load(saga)).collect()
    }

    pub(super) fn parked(&self, fingerprint: Option<Uuid>, after: Option<SagaId>) -> impl Iterator<Item = SagaId> {
        let parked = self.sagas.values().filter(|row| row.status == Status::Parked);
        let wanted = parked.filter(move |row| fingerprint.is_none() || row.parked == fingerprint);
        wanted.map(|row| row.saga.id).filter(move |saga| after.is_none_or(|after| *saga > after))
    }
}

/// What its owner is told to look at is due again after this, in case that it did not hear.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

fn is_due(row: &SagaRow, now: DateTime<Utc>) -> bool {
    row.wake_at.is_some_and(|wake_at| wake_at <= now)
}

fn is_registered(row: &SagaRow, claim: &Claim) -> bool {
    claim.registered.iter().any(|(name, version)| is_of(row, name, *version))
}

fn is_of(row: &SagaRow, name: &str, version: u32) -> bool {
    row.saga.name == name && row.saga.version == version
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
    let value = |saga: &NewSaga| saga.input.decode::<Value>().ok();
    value(a).zip(value(b)).is_some_and(|(a, b)| same_value(&a, &b))
}

fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        // `1`, `1.0` and `1e0` are one number.
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_value(a, b)))
        }
        _ => a == b,
    }
}
