//! What the tasks of one life of a worker share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::definition::Position;
use crate::event::Event;
use crate::store::{Append, Appended, Head, Loaded, WorkerStore};
use crate::worker::alarms::Alarms;
use crate::worker::drive::Drive;
use crate::worker::insist::insist;
use crate::worker::{Kinds, WorkerOptions};
use crate::{SagaId, StoreError, WorkerId};

/// A saga that could not be driven for a reason of its own is looked at again after this.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(5);
/// A saga of another making than the registered one is left alone for this long.
const PAUSE_FOREIGN: Duration = Duration::from_mins(1);

pub(crate) struct Crew<S: WorkerStore> {
    pub(crate) store: Arc<S>,
    pub(crate) kinds: Arc<Kinds<S::Tx>>,
    pub(crate) worker: WorkerId,
    pub(crate) options: WorkerOptions,
    /// No new attempts.
    pub(crate) draining: CancellationToken,
    /// Drop everything.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) permits: Arc<Semaphore>,
    /// Names of which only so many may go forward at once.
    pub(super) bounds: Vec<(String, u32)>,
    pub(super) alarms: Alarms,
    freed: Notify,
    bounded_freed: Notify,
    nonce: AtomicI64,
    driven: Mutex<HashMap<SagaId, Driven>>,
}

/// A saga that a task of this worker drives.
#[derive(Default)]
struct Driven {
    nudge: Arc<Notify>,
    /// It was claimed or written to from outside since its task last looked.
    look_again: bool,
}

impl<S: WorkerStore> Crew<S> {
    pub(super) fn new(store: Arc<S>, kinds: Arc<Kinds<S::Tx>>, worker: WorkerId, options: WorkerOptions) -> Self {
        Self {
            store,
            bounds: bounds(&kinds),
            kinds,
            worker,
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            permits: Arc::new(Semaphore::new(options.concurrency)),
            alarms: Alarms::new(),
            freed: Notify::new(),
            bounded_freed: Notify::new(),
            nonce: AtomicI64::new(0),
            driven: Mutex::default(),
            options,
        }
    }

    /// A number that this worker uses for one append only.
    pub(super) fn nonce(&self) -> i64 {
        self.nonce.fetch_add(1, Ordering::Relaxed)
    }

    /// Resolves when a saga has let go of its place.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Resolves when a saga has let go of one of the places that its kind has.
    pub(super) async fn bounded_freed(&self) {
        self.bounded_freed.notified().await;
    }

    pub(crate) fn is_bounded(&self, name: &str) -> bool {
        self.bounds.iter().any(|(bounded, _)| bounded == name)
    }

    /// Drives a saga that this worker owns, or tells its task that somebody wrote to it.
    pub(crate) fn drive(self: &Arc<Self>, loaded: Loaded) {
        // More than the permits can be handed over for a moment: those claimed by a hint or adopted.
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok();
        self.drive_with(loaded, permit);
    }

    pub(crate) fn drive_with(self: &Arc<Self>, loaded: Loaded, permit: Option<OwnedSemaphorePermit>) {
        let nudge = match self.lock_driven().entry(loaded.id) {
            Entry::Occupied(mut entry) => {
                entry.get_mut().look_again = true;
                return entry.get().nudge.notify_one();
            }
            Entry::Vacant(entry) => Arc::clone(&entry.insert(Driven::default()).nudge),
        };
        let crew = Arc::clone(self);
        self.tasks.spawn(async move {
            let (saga, is_bounded) = (loaded.id, crew.is_bounded(&loaded.name));
            if AssertUnwindSafe(crew.drive_to_rest(loaded, nudge)).catch_unwind().await.is_err() {
                tracing::error!(%saga, "the worker panicked over this saga; that is a bug of amends");
                crew.abandon(saga).await;
                crew.lock_driven().remove(&saga);
            }
            drop(permit);
            crew.freed.notify_one();
            if is_bounded {
                crew.bounded_freed.notify_one();
            }
        });
    }

    /// The sagas that a task of this worker drives.
    pub(super) fn driven(&self) -> Vec<SagaId> {
        self.lock_driven().keys().copied().collect()
    }

    fn lock_driven(&self) -> MutexGuard<'_, HashMap<SagaId, Driven>> {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drive_to_rest(self: &Arc<Self>, loaded: Loaded, nudge: Arc<Notify>) {
        let saga = loaded.id;
        let mut mine = Some(loaded);
        loop {
            if let Some(loaded) = mine.take()
                && let Err(error) = self.drive_once(loaded, &nudge).await
            {
                tracing::error!(%saga, %error, "cannot drive the saga now");
                self.abandon(saga).await;
            }
            if self.stop.is_cancelled() || self.is_at_rest(saga) {
                return;
            }
            // It was claimed again while its task was letting go of it.
            match self.store.load(saga).await {
                Ok(loaded) => {
                    mine = loaded.filter(|loaded| loaded.owner == Some(self.worker) && !loaded.status.is_final());
                }
                Err(error) => {
                    tracing::warn!(%saga, %error, "cannot read the saga");
                    self.insist_on_release(saga, PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    async fn drive_once(self: &Arc<Self>, loaded: Loaded, nudge: &Arc<Notify>) -> Result<(), StoreError> {
        let kind = self.kinds.get(&(loaded.name.clone(), loaded.version));
        match kind {
            Some(kind)
                if kind.fingerprint == loaded.fingerprint
                    || kind.definition.position(&loaded.fold()) == Position::Safe =>
            {
                Drive::new(Arc::clone(self), Arc::clone(kind), &loaded, Arc::clone(nudge)).run().await
            }
            kind => {
                complain(&loaded, kind.map(|kind| kind.fingerprint));
                self.insist_on_release(loaded.id, PAUSE_FOREIGN).await;
                Ok(())
            }
        }
    }

    /// Whether the saga's task may end; if not, it must look again.
    fn is_at_rest(&self, saga: SagaId) -> bool {
        let mut driven = self.lock_driven();
        match driven.get_mut(&saga) {
            Some(entry) if entry.look_again => {
                entry.look_again = false;
                false
            }
            _ => {
                driven.remove(&saga);
                true
            }
        }
    }

    /// What was under way is lost without a record, as if the worker had died, so its journal says the same.
    async fn abandon(&self, saga: SagaId) {
        match insist(self.stop.clone(), || self.adopt_from_itself(saga)).await {
            Ok(()) | Err(StoreError::Unavailable(_)) => {}
            Err(error) => {
                tracing::error!(%saga, %error, "nothing can be written to the saga's journal");
                self.insist_on_release(saga, PAUSE_AFTER_ERROR).await;
            }
        }
    }

    async fn adopt_from_itself(&self, saga: SagaId) -> Result<(), StoreError> {
        loop {
            let Some(loaded) = self.store.load(saga).await? else { return Ok(()) };
            if loaded.owner != Some(self.worker) {
                return Ok(());
            }
            let head = Head { status: loaded.status, wake_in: Some(PAUSE_AFTER_ERROR), release: true, parked: None };
            let events = vec![Event::Adopted { by: self.worker }];
            let append = Append::new(saga, loaded.fold().seq + 1, self.worker, self.nonce(), events);
            let append = Append { head: Some(head), ..append };
            if let Appended::Done(_) = self.store.append(append).await? {
                self.alarms.add(PAUSE_AFTER_ERROR);
                return Ok(());
            }
        }
    }

    /// A saga that stays owned but undriven would be lost until this worker dies.
    async fn insist_on_release(&self, saga: SagaId, pause: Duration) {
        while let Err(error) = self.store.release(self.worker, &[(saga, Some(pause))]).await {
            tracing::warn!(%saga, %error, "cannot release the saga; trying again");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = self.stop.cancelled() => return,
            }
        }
        self.alarms.add(pause);
    }

    /// Starts nothing new and waits, for a while, until what is under way has been recorded.
    pub(super) async fn drain(&self) {
        self.draining.cancel();
        for driven in self.lock_driven().values() {
            driven.nudge.notify_one();
        }
        self.tasks.close();
        if tokio::time::timeout(self.options.grace, self.tasks.wait()).await.is_err() {
            tracing::warn!("some steps did not finish in time; another worker will repeat them under the same keys");
        }
    }
}

/// The newest version says how many.
fn bounds<T>(kinds: &Kinds<T>) -> Vec<(String, u32)> {
    let is_newest = |name: &String, version: &u32| !kinds.keys().any(|(it, later)| it == name && later > version);
    let newest = kinds.iter().filter(|((name, version), _)| is_newest(name, version));
    newest.filter_map(|((name, _), kind)| Some((name.clone(), kind.definition.concurrency?))).collect()
}

fn complain(loaded: &Loaded, registered_as: Option<uuid::Uuid>) {
    tracing::error!(
        saga = %loaded.id, name = loaded.name, version = loaded.version, started_as = %loaded.fingerprint,
        ?registered_as,
        "the saga was started with another definition and cannot go on under this one; register the old definition, \
         and give the new one a new version"
    );
}
