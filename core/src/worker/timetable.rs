//! Starts sagas that start by themselves: once for all workers, by the clock of the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::sleep;

use crate::StoreError;
use crate::sagas::Hints;
use crate::schedule::{Schedule, Tick};
use crate::store::WorkerStore;
use crate::worker::{Crew, Kind};

/// How often the timetable is looked at; a start is late by as much.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks at the timetable until the worker stops. What was missed while no worker ran is made up for once.
pub(super) async fn keep<S: WorkerStore>(crew: Arc<Crew<S>>, hints: Arc<Hints<S>>) {
    let scheduled = newest(&crew);
    if scheduled.is_empty() {
        return;
    }
    let names: Vec<_> = scheduled.keys().cloned().collect();
    let mut is_set = false;
    while !crew.stop.is_cancelled() && !crew.draining.is_cancelled() {
        match look(&crew, &hints, &scheduled, &names, is_set).await {
            Ok(()) => is_set = true,
            Err(error) => tracing::warn!(%error, "cannot look at the timetable; trying again"),
        }
        tokio::select! {
            () = sleep(LOOK_EVERY.mul_f64(0.75 + fastrand::f64() / 2.0)) => {}
            () = crew.stop.cancelled() => {}
            () = crew.draining.cancelled() => {}
        }
    }
}

type Scheduled<T> = BTreeMap<String, (Arc<Kind<T>>, Schedule)>;

/// Of several versions the newest is started.
fn newest<S: WorkerStore>(crew: &Crew<S>) -> Scheduled<S::Tx> {
    let mut newest: Scheduled<S::Tx> = BTreeMap::new();
    for kind in crew.kinds.values() {
        let Some(schedule) = &kind.definition.schedule else { continue };
        let name = kind.definition.name.to_string();
        let is_older = |(other, _): &(Arc<Kind<S::Tx>>, _)| other.definition.version >= kind.definition.version;
        if !newest.get(&name).is_some_and(is_older) {
            newest.insert(name, (Arc::clone(kind), schedule.clone()));
        }
    }
    newest
}

async fn look<S: WorkerStore>(
    crew: &Crew<S>,
    hints: &Hints<S>,
    scheduled: &Scheduled<S::Tx>,
    names: &[String],
    is_set: bool,
) -> Result<(), StoreError> {
    let (overdue, now) = crew.store.overdue(names).await?;
    if !is_set {
        for (name, (_, schedule)) in scheduled {
            if let Some(next) = schedule.next_after(now) {
                crew.store.schedule(name, &schedule.text(), next).await?;
            }
        }
    }
    for (name, at) in overdue {
        let Some((kind, schedule)) = scheduled.get(&name) else { continue };
        start(crew, hints, kind, at, schedule.next_after(now)).await?;
    }
    Ok(())
}

async fn start<S: WorkerStore>(
    crew: &Crew<S>,
    hints: &Hints<S>,
    kind: &Kind<S::Tx>,
    at: DateTime<Utc>,
    next: Option<DateTime<Utc>>,
) -> Result<(), StoreError> {
    let name = &kind.definition.name;
    match (kind.scheduled)(Tick { at }) {
        Some(Ok(saga)) => {
            let id = saga.id;
            if crew.store.start_scheduled(saga, at, next).await? {
                tracing::info!(saga = %id, name = &**name, %at, "started by its schedule");
                hints.add(id);
            }
        }
        Some(Err(error)) => tracing::error!(name = &**name, %at, %error, "cannot start a saga by its schedule"),
        None => tracing::error!(name = &**name, "a saga with a schedule must say what it is started with"),
    }
    Ok(())
}
