//! Keeps a worker's lease, and stops the worker when it cannot.

use std::sync::Arc;

use tokio::time::{Instant, sleep, timeout_at};

use crate::StoreError;
use crate::store::WorkerStore;
use crate::worker::Crew;

/// Renews until the worker stops. A worker that could not renew for a whole lease stops itself: others will adopt its
/// sagas, and whatever it still did would be refused by their journals. This only saves the work.
pub(super) async fn keep_lease<S: WorkerStore>(crew: Arc<Crew<S>>) {
    let lease = crew.options.lease;
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            () = sleep(lease / 5) => {}
            () = crew.stop.cancelled() => return,
        }
        let asked = Instant::now();
        // Its own task, so that the deadline below gives up waiting without cancelling the statement.
        let renewal = tokio::spawn({
            let crew = Arc::clone(&crew);
            async move { crew.store.heartbeat(crew.worker, crew.options.lease).await }
        });
        match timeout_at(renewed + lease, renewal).await {
            Ok(Ok(Ok(()))) => renewed = asked,
            Ok(Ok(Err(StoreError::WorkerLost))) | Err(_) => break,
            Ok(Ok(Err(error))) => tracing::warn!(%error, "cannot renew the worker's lease; trying again"),
            Ok(Err(panic)) => tracing::error!(%panic, "renewing the worker's lease panicked"),
        }
        if renewed.elapsed() > lease {
            break;
        }
    }
    tracing::error!(worker = %crew.worker, "the lease has run out; letting all sagas go and starting anew");
    crew.stop.cancel();
}
