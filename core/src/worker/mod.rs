//! The worker: claims sagas that are due, drives each in a task, keeps its lease, and adopts what dead workers left.

mod alarms;
pub(crate) mod attempt;
pub(crate) mod child;
mod clock;
mod crew;
mod drive;
pub(crate) mod failure;
mod insist;
mod launch;
mod options;
mod pace;
pub(crate) mod plan;
mod timetable;
pub(crate) mod waiting;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::definition::Definition;
use crate::saga::Steps;
use crate::sagas::Hints;
use crate::schedule::Tick;
use crate::store::{BellListener, Claim, NewSaga, WorkerStore};
use crate::{Error, StoreError, WorkerId};

pub(crate) use crew::Crew;
pub use options::WorkerOptions;
use pace::Pace;

/// A registered saga: its definition and its bodies.
pub(crate) struct Kind<T> {
    pub(crate) definition: Arc<Definition>,
    pub(crate) fingerprint: uuid::Uuid,
    pub(crate) steps: Box<dyn Steps<T>>,
    /// What is started at a time of its schedule.
    pub(crate) scheduled: fn(Tick) -> Option<Result<NewSaga, Error>>,
}

/// Registered sagas by name and version.
pub(crate) type Kinds<T> = HashMap<(String, u32), Arc<Kind<T>>>;

/// A worker that lost its lease, as in an outage of the database, tries this often to begin anew.
const REGISTER_EVERY: Duration = Duration::from_secs(1);

/// Runs one life of a worker after another until `shutdown`: one that was declared dead starts anew.
///
/// Dropping the future is like the death of the process: its tasks stop, and others adopt its sagas.
pub(crate) async fn run<S: WorkerStore>(
    store: Arc<S>,
    kinds: Arc<Kinds<S::Tx>>,
    hints: Arc<Hints<S>>,
    options: WorkerOptions,
    shutdown: CancellationToken,
) -> Result<(), StoreError> {
    let mut first = true;
    while !shutdown.is_cancelled() {
        let crew = Arc::new(Crew::new(Arc::clone(&store), Arc::clone(&kinds), WorkerId::new(), options.clone()));
        match store.register(crew.worker, &crew.options.name, crew.options.lease).await {
            Ok(()) => first = false,
            Err(error) if first => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "cannot register the worker again; trying on");
                tokio::select! {
                    () = sleep(REGISTER_EVERY) => continue,
                    () = shutdown.cancelled() => return Ok(()),
                }
            }
        }
        let _stops_when_dropped = crew.stop.clone().drop_guard();
        tracing::info!(worker = %crew.worker, name = crew.options.name, "worker started");
        hints.set_crew(Some(Arc::clone(&crew)));
        let keeper = tokio::spawn(watch::keep_lease(Arc::clone(&crew)));
        let timekeeper = tokio::spawn(timetable::keep(Arc::clone(&crew), Arc::clone(&hints)));
        work(&crew, &hints, &shutdown).await;
        hints.set_crew(None);
        if shutdown.is_cancelled() {
            crew.drain().await;
        }
        crew.stop.cancel();
        crew.tasks.close();
        crew.tasks.wait().await;
        keeper.abort();
        timekeeper.await.unwrap_or_default();
        if shutdown.is_cancelled() {
            store.retire(crew.worker).await?;
            tracing::info!(worker = %crew.worker, "worker stopped");
        }
    }
    Ok(())
}

/// The loop of one life: claim, spawn, wait for a reason to claim again.
async fn work<S: WorkerStore>(crew: &Arc<Crew<S>>, hints: &Hints<S>, shutdown: &CancellationToken) {
    let mut pace = Pace::new(crew);
    let mut bell = crew.store.bell();
    let mut next = Instant::now();
    loop {
        let due = [hints.next_probe(), crew.alarms.next()].into_iter().flatten().fold(next, Instant::min);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = crew.stop.cancelled() => return,
            () = hints.arrived() => continue,
            () = crew.alarms.earlier() => continue,
            () = rung(&mut bell) => {}
            () = crew.freed(), if pace.wants_more => {}
            () = crew.bounded_freed() => {}
            () = sleep_until(due) => {}
        }
        let found = match claim(crew, hints, &mut pace).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "cannot claim sagas; trying again");
                0
            }
        };
        next = pace.next(found, bell.as_ref().is_some_and(BellListener::is_reliable));
    }
}

async fn rung(bell: &mut Option<BellListener>) {
    match bell {
        Some(bell) => bell.rung().await,
        None => std::future::pending().await,
    }
}

async fn claim<S: WorkerStore>(crew: &Arc<Crew<S>>, hints: &Hints<S>, pace: &mut Pace) -> Result<usize, StoreError> {
    let now = Instant::now();
    crew.alarms.rung(now);
    let free = crew.permits.available_permits();
    let limit = free.min(crew.options.batch);
    let sweep = pace.is_sweep(now);
    let mut registered: Vec<_> = crew.kinds.keys().cloned().collect();
    fastrand::shuffle(&mut registered);
    let mut claim = Claim {
        worker: crew.worker,
        registered,
        limit,
        forward_limit: free.saturating_sub(crew.options.reserved_for_compensation()).min(limit),
        bounds: crew.bounds.clone(),
        hints: hints.due_probes(now),
        sweep,
        driven: if sweep { crew.driven() } else { Vec::new() },
    };
    // Adoption comes first: under load the claim fills every place.
    let adopted = if claim.forward_limit > 0 && pace.is_adoption(now) { adopt(crew, &claim, pace).await } else { 0 };
    claim.limit -= adopted.min(claim.limit);
    claim.forward_limit -= adopted.min(claim.forward_limit);
    let found = crew.store.claim(claim.clone()).await?;
    pace.wants_more = found.len() >= claim.forward_limit;
    hints.found(found.iter().map(|loaded| loaded.id));
    let count = found.len() + adopted;
    for loaded in found {
        crew.drive(loaded);
    }
    Ok(count)
}

/// Orphans take the places of sagas that go forward, also those that compensate: the others stay reserved.
async fn adopt<S: WorkerStore>(crew: &Arc<Crew<S>>, claim: &Claim, pace: &mut Pace) -> usize {
    let adopted = match crew.store.adopt(Claim { limit: claim.forward_limit, ..claim.clone() }).await {
        Ok(adopted) => adopted,
        Err(error) => {
            tracing::warn!(%error, "cannot adopt sagas; trying again");
            return 0;
        }
    };
    let count = adopted.len();
    if count > 0 {
        tracing::info!(sagas = count, "adopted sagas of a dead worker");
        metrics::counter!(crate::telemetry::ADOPTED).increment(count as u64);
        pace.adopt_again();
    }
    for loaded in adopted {
        crew.drive(loaded);
    }
    count
}
