//! The database's clock, as far as one can know it between two answers of the database.

use chrono::{DateTime, Utc};
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    told: DateTime<Utc>,
    at: Instant,
}

impl Clock {
    pub(super) fn set(told: DateTime<Utc>) -> Self {
        Self { told, at: Instant::now() }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.told + self.at.elapsed()
    }

    pub(super) fn instant_of(&self, time: DateTime<Utc>) -> Instant {
        Instant::now() + (time - self.now()).to_std().unwrap_or_default()
    }
}
