//! When a failed attempt is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// No pause is longer: a century. A time beyond the calendar's end could not be computed.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(100 * 365 * 24);

/// How often, and after how long, a failed attempt is tried again.
///
/// The pause doubles from `first` up to `longest`. A part of each pause is drawn at random, so that many sagas which
/// failed together do not come back together.
///
/// ```
/// use amends::RetryPolicy;
/// use std::time::Duration;
/// let second = Duration::from_secs(1);
/// let policy = RetryPolicy { attempts: Some(3), first: second, longest: 60 * second, ..RetryPolicy::STEP };
/// let no_time = Duration::ZERO;
/// assert_eq!(policy.pause_after(1, no_time, 1.0), Some(second));
/// assert_eq!(policy.pause_after(2, no_time, 0.0), Some(second));
/// assert_eq!(policy.pause_after(3, no_time, 0.5), None);
/// let impatient = RetryPolicy { budget: Some(5 * second), ..policy };
/// assert_eq!(impatient.pause_after(1, 5 * second, 1.0), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How many attempts there are in all; `None` means that it never gives up.
    pub attempts: Option<u32>,
    /// The pause after the first failed attempt.
    pub first: Duration,
    /// No pause is longer than this.
    pub longest: Duration,
    /// How many per cent of a pause are random. 50.
    pub jitter: u8,
    /// So long after the first failed attempt none is begun any more; `None` sets no limit.
    pub budget: Option<Duration>,
}

impl RetryPolicy {
    /// For steps before the pivot: 8 attempts over about a minute, then the saga compensates.
    pub const STEP: Self = Self {
        attempts: Some(8),
        first: Duration::from_millis(200),
        longest: Duration::from_secs(30),
        jitter: 50,
        budget: None,
    };
    /// For steps after the pivot: for ever, since there is no way back.
    pub const FORWARD: Self = Self { attempts: None, ..Self::STEP };
    /// For compensations: 30 attempts over about two hours, then the saga is parked for an operator.
    pub const COMPENSATION: Self = Self { attempts: Some(30), longest: Duration::from_mins(5), ..Self::STEP };
    /// For what is waited for: a reply that did not come in time is not asked for again.
    pub const ONCE: Self = Self { attempts: Some(1), ..Self::STEP };

    /// The pause after `attempt` (counted from 1) has failed, `spent` after the first one did; `None` when it was the last.
    /// `jitter` in `0.0..=1.0` chooses within the random part of the pause.
    pub fn pause_after(&self, attempt: u32, spent: Duration, jitter: f64) -> Option<Duration> {
        if self.attempts.is_some_and(|most| attempt >= most) {
            return None;
        }
        let doubled = self.first.saturating_mul(1_u32 << attempt.saturating_sub(1).min(30));
        let full = doubled.min(self.longest);
        let random = full.mul_f64(f64::from(self.jitter.min(100)) / 100.0);
        let pause = full.saturating_sub(random) + random.mul_f64(jitter.clamp(0.0, 1.0));
        let in_budget = self.budget.is_none_or(|budget| spent.saturating_add(pause) <= budget);
        in_budget.then_some(pause)
    }
}
