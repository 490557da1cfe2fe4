//! Tells the worker of this process about sagas that were started here, so that they need not wait for a poll.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use crate::SagaId;
use crate::store::WorkerStore;
use crate::worker::Crew;

/// A start is looked for after these pauses; a transaction that takes longer is found by polling.
const PROBES_MS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// More starts than this wait for a poll instead: a hint is never needed.
const MOST: usize = 4096;

pub(crate) struct Hints<S: WorkerStore> {
    inner: Mutex<Inner<S>>,
    arrived: Notify,
}

struct Inner<S: WorkerStore> {
    probes: VecDeque<Probe>,
    crew: Option<Arc<Crew<S>>>,
}

struct Probe {
    saga: SagaId,
    at: Instant,
    round: usize,
}

impl<S: WorkerStore> Default for Hints<S> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { probes: VecDeque::new(), crew: None }), arrived: Notify::new() }
    }
}

impl<S: WorkerStore> Hints<S> {
    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_crew(&self, crew: Option<Arc<Crew<S>>>) {
        let mut inner = self.lock();
        inner.probes.clear();
        inner.crew = crew;
    }

    /// A place in this process's worker, if it has one and runs sagas of this kind. Where only so many may run, they are
    /// counted in a claim.
    pub(crate) fn place(&self, kind: &(String, u32)) -> Option<(Arc<Crew<S>>, OwnedSemaphorePermit)> {
        let crew = self.lock().crew.clone()?;
        if crew.stop.is_cancelled()
            || !crew.kinds.contains_key(kind)
            || crew.is_bounded(&kind.0)
            || crew.permits.available_permits() <= crew.options.reserved_for_compensation()
        {
            return None;
        }
        let permit = Arc::clone(&crew.permits).try_acquire_owned().ok()?;
        Some((crew, permit))
    }

    pub(crate) fn add(&self, saga: SagaId) {
        let mut inner = self.lock();
        if inner.crew.is_some() && inner.probes.len() < MOST {
            inner.probes.push_back(Probe { saga, at: Instant::now() + Duration::from_millis(PROBES_MS[0]), round: 0 });
            self.arrived.notify_one();
        }
    }

    /// Resolves when a start arrives that nobody has looked for yet.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub(crate) fn next_probe(&self) -> Option<Instant> {
        self.lock().probes.iter().map(|probe| probe.at).min()
    }

    /// The sagas to look for now. Each comes back later, until its rounds are over.
    pub(crate) fn due_probes(&self, now: Instant) -> Vec<SagaId> {
        let mut inner = self.lock();
        let mut due = Vec::new();
        inner.probes.retain_mut(|probe| {
            if probe.at > now {
                return true;
            }
            due.push(probe.saga);
            probe.round += 1;
            match PROBES_MS.get(probe.round) {
                Some(pause) => {
                    probe.at = now + Duration::from_millis(*pause);
                    true
                }
                None => false,
            }
        });
        due
    }

    /// Those that were found need not be looked for again.
    pub(crate) fn found(&self, sagas: impl Iterator<Item = SagaId>) {
        let mut inner = self.lock();
        if inner.probes.is_empty() {
            return;
        }
        let found: std::collections::HashSet<_> = sagas.collect();
        inner.probes.retain(|probe| !found.contains(&probe.saga));
    }
}
