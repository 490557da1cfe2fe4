//! When a worker looks for what.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::WorkerStore;
use crate::worker::Crew;

/// The longest pause between two looks where nobody tells what others do.
const LONGEST_WITHOUT_HINTS: Duration = Duration::from_millis(250);

/// A start that committed long after its `wake_at` is found by a full sweep, if not by a hint.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Pace {
    poll: Duration,
    /// A place that another worker's saga leaves is nobody's hint.
    is_bounded: bool,
    pause: Duration,
    /// There was more than could be taken.
    pub(super) wants_more: bool,
    next_sweep: Instant,
    next_adoption: Instant,
    adoption_every: Duration,
}

impl Pace {
    pub(super) fn new<S: WorkerStore>(crew: &Crew<S>) -> Self {
        let now = Instant::now();
        Self {
            poll: crew.options.poll,
            is_bounded: !crew.bounds.is_empty(),
            pause: Duration::ZERO,
            wants_more: false,
            next_sweep: now,
            next_adoption: now,
            adoption_every: crew.options.lease / 4,
        }
    }

    pub(super) fn is_sweep(&mut self, now: Instant) -> bool {
        let due = now >= self.next_sweep;
        if due {
            self.next_sweep = now + SWEEP_EVERY;
        }
        due
    }

    pub(super) fn is_adoption(&mut self, now: Instant) -> bool {
        let due = now >= self.next_adoption;
        if due {
            self.next_adoption = now + jittered(self.adoption_every);
        }
        due
    }

    pub(super) fn adopt_again(&mut self) {
        self.next_adoption = Instant::now();
    }

    /// When to look next: at once after a full batch, else after a pause that doubles up to the poll interval.
    pub(super) fn next(&mut self, found: usize, has_hints: bool) -> Instant {
        let now = Instant::now();
        if found > 0 && self.wants_more {
            return now;
        }
        let shortest = self.poll.min(LONGEST_WITHOUT_HINTS);
        let longest = if has_hints && !self.is_bounded { self.poll } else { shortest };
        self.pause = if found > 0 { shortest } else { (self.pause * 2).clamp(shortest, longest) };
        // A worker that is full adopts nothing, however long it has been due.
        let other = self.next_sweep.min(self.next_adoption).max(now + shortest);
        other.min(now + jittered(self.pause))
    }
}

/// So that workers which began together do not look together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 2.0)
}
