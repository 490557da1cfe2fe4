//! Pauses before something is tried again: they grow, and differ, so that what failed together does not come back together.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(100);

/// From a tenth of a second up to a longest one, each twice the one before, with jitter.
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: SHORTEST, longest }
    }

    pub(crate) fn take(&mut self) -> Duration {
        let pause = self.next.min(self.longest).mul_f64(jitter());
        self.next = self.next.saturating_mul(2).min(self.longest);
        pause
    }

    /// It works again.
    pub(crate) fn restart(&mut self) {
        self.next = SHORTEST;
    }
}

/// Between a half and one.
pub(crate) fn jitter() -> f64 {
    0.5 + fastrand::f64() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_differ() {
        let mut pauses = Pauses::up_to(Duration::from_secs(1));
        let taken: Vec<Duration> = (0..20).map(|_| pauses.take()).collect();
        let between = |pause: Duration, low, high| pause.as_millis() >= low && pause.as_millis() <= high;
        assert!(between(taken[0], 50, 100) && between(taken[1], 100, 200), "{taken:?}");
        assert!(taken[4..].iter().all(|&pause| between(pause, 500, 1000)), "{taken:?}");
        assert!(taken[4..].windows(2).any(|two| two[0] != two[1]), "{taken:?}");
        pauses.restart();
        assert!(between(pauses.take(), 50, 100));
    }
}
