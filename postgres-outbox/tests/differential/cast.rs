//! Who plays in a sequence: the same for both stores, and nobody of another sequence.

use std::time::Duration;

use amends::store::Priority;
use amends::{MessageId, SagaId, WorkerId};
use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

/// Sagas and messages that a sequence can make, at most.
const MANY: usize = 200;

pub(crate) struct Cast {
    /// Made before all others of the sequence.
    pub(crate) before: SagaId,
    pub(crate) sagas: Vec<SagaId>,
    pub(crate) messages: Vec<MessageId>,
    /// The last one is never registered.
    pub(crate) workers: Vec<WorkerId>,
    /// Looks at what is left at the end.
    pub(crate) looker: WorkerId,
    names: Vec<String>,
    fingerprints: Vec<Uuid>,
    now: DateTime<Utc>,
}

impl Cast {
    pub(crate) fn new() -> Self {
        let sequence = Uuid::new_v4().simple();
        Self {
            before: SagaId::new(),
            sagas: (0..MANY).map(|_| SagaId::new()).collect(),
            messages: (0..MANY).map(|_| MessageId::new()).collect(),
            workers: (0..4).map(|_| WorkerId::new()).collect(),
            looker: WorkerId::new(),
            names: ["shop", "bank"].map(|name| format!("{name} {sequence}")).to_vec(),
            fingerprints: (0..3).map(|_| Uuid::new_v4()).collect(),
            now: Utc::now().trunc_subsecs(3),
        }
    }

    pub(crate) fn name(&self, number: usize) -> &str {
        &self.names[number % self.names.len()]
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn worker(&self, number: usize) -> WorkerId {
        self.workers[number % self.workers.len()]
    }

    pub(crate) fn fingerprint(&self, number: usize) -> Uuid {
        self.fingerprints[number % self.fingerprints.len()]
    }

    /// Half an hour apart, the first three in the past.
    pub(crate) fn time(&self, number: usize) -> DateTime<Utc> {
        self.now - Duration::from_hours(2)
            + Duration::from_mins(30) * (number % 3) as u32
            + if number % 4 == 3 { Duration::from_hours(5) } else { Duration::ZERO }
    }

    pub(crate) fn priority(number: usize) -> Priority {
        Priority::ALL[number % 3]
    }
}
