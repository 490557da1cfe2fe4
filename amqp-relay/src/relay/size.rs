//! How large waves are: as large as the broker confirms within a moment. Pure.

use std::time::Duration;

/// The first waves, and those of a broker that is slow.
const LEAST: usize = 100;
/// Waves that are confirmed sooner grow.
const SOON: Duration = Duration::from_secs(1);
/// Waves that take longer shrink: what is under way for long runs into the deadline, and is published again if the relay dies.
const LATE: Duration = Duration::from_secs(2);

/// The size of the next waves.
#[derive(Debug)]
pub(super) struct WaveSize {
    now: usize,
    most: usize,
}

impl WaveSize {
    pub(super) fn up_to(most: usize) -> Self {
        Self { now: LEAST.min(most), most }
    }

    pub(super) fn get(&self) -> usize {
        self.now
    }

    /// A wave of this size took so long. Of several that were under way at once only the first counts.
    pub(super) fn learn(&mut self, size: usize, took: Duration) {
        if took < SOON && size >= self.now {
            self.now = (size * 2).min(self.most);
        } else if took > LATE && size / 2 < self.now {
            self.now = (size / 2).max(LEAST).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_as_large_as_the_broker_confirms_within_a_moment() {
        for (rate, smallest, largest) in [(10_000, 1_000, 1_000), (1_000, 250, 500), (100, 100, 100), (3, 100, 100)] {
            let mut size = WaveSize::up_to(1_000);
            for round in 1..100 {
                let waves = [size.get(); 4];
                let took = Duration::from_secs_f64(4.0 * size.get() as f64 / f64::from(rate));
                for wave in waves {
                    size.learn(wave, took);
                }
                assert!(round < 5 || (smallest..=largest).contains(&size.get()), "{rate}/s: {size:?}");
            }
        }
    }

    #[test]
    fn what_is_small_for_want_of_messages_says_little() {
        let mut size = WaveSize::up_to(1_000);
        size.learn(3, Duration::ZERO);
        assert_eq!(size.get(), LEAST);
        assert_eq!(WaveSize::up_to(10).get(), 10, "no larger than the options want");
    }
}
