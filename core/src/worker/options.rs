//! How a worker behaves.

use std::time::Duration;

/// Settings of a worker; the defaults suit one service process.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// A name for people, such as the host and process id.
    pub name: String,
    /// A worker that has not renewed for this long is believed dead, and its sagas are adopted. 10 s.
    pub lease: Duration,
    /// The longest pause between two looks for due sagas when nothing wakes it. 1 s; 250 ms at most while the store cannot
    /// tell what others do. What is made due by SQL alone, without a hint, waits for as long.
    pub poll: Duration,
    /// How many sagas it drives at once. 1 024. Waiting sagas do not count: nothing holds them.
    pub concurrency: usize,
    /// How many sagas it takes in one claim. 256.
    pub batch: usize,
    /// How long steps under way may still take when it is asked to stop. 10 s.
    pub grace: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "worker".into());
        Self {
            name: format!("{host}:{}", std::process::id()),
            lease: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            concurrency: 1024,
            batch: 256,
            grace: Duration::from_secs(10),
        }
    }
}

impl WorkerOptions {
    /// An eighth of the places is only for sagas that compensate, so that new starts never starve them.
    pub(crate) fn reserved_for_compensation(&self) -> usize {
        self.concurrency / 8
    }
}
