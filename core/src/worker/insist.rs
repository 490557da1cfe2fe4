//! Asks the store again until it answers.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::StoreError;

/// Repeats a question while the store is not available, with growing pauses. What has happened has happened, whether
/// or not it can be recorded now; to forget it would let a later answer pass for the first one.
///
/// # Errors
/// Returns every other error at once, and [`StoreError::Unavailable`] only if the worker stops.
pub(super) async fn insist<T, F>(stop: CancellationToken, mut ask: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match ask().await {
            Err(StoreError::Unavailable(error)) => error,
            answer => return answer,
        };
        tracing::warn!(%error, "the store does not answer; trying again");
        tokio::select! {
            () = stop.cancelled() => return Err(StoreError::Unavailable(error)),
            () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => pause = (pause * 2).min(Duration::from_secs(2)),
        }
    }
}
