//! When sagas that this worker has let go of are due: it looks for them then, however long its polls are.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What is due later is found by polling: it is late by less than a tenth.
const HORIZON: Duration = Duration::from_mins(1);
/// Those that are due together, give or take this, share an alarm, so that there are few.
const GRAIN: Duration = Duration::from_millis(10);

/// Alarms are hints: another worker may come first, and what a dead one waited for is found by polling.
#[derive(Debug)]
pub(crate) struct Alarms {
    begun: Instant,
    /// In grains since `begun`.
    set: Mutex<BTreeSet<u64>>,
    earlier: Notify,
}

impl Alarms {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), set: Mutex::default(), earlier: Notify::new() }
    }

    fn set(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A saga is due after this time, by the database's clock from a moment ago on.
    pub(super) fn add(&self, due_in: Duration) {
        if due_in > HORIZON {
            return;
        }
        let since = self.begun.elapsed() + due_in;
        // Never before it is due.
        let grain = (since.as_millis() / GRAIN.as_millis()) as u64 + 1;
        let mut set = self.set();
        let is_first = set.first().is_none_or(|first| grain < *first);
        set.insert(grain);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Resolves when there is an alarm before all others.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.set().first().map(|grain| self.begun + since_begun(*grain))
    }

    /// Forgets those that have rung.
    pub(super) fn rung(&self, now: Instant) {
        let since = now.saturating_duration_since(self.begun);
        let mut set = self.set();
        while set.first().is_some_and(|grain| since_begun(*grain) <= since) {
            set.pop_first();
        }
    }
}

fn since_begun(grain: u64) -> Duration {
    Duration::from_millis(grain.saturating_mul(GRAIN.as_millis() as u64))
}
