//! When a failed attempt is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often, and after how long, a failed attempt is tried again.
///
/// The pause doubles from `first` up to `longest`. Each pause is drawn at random from its upper half, so that
/// many sagas which failed together do not come back together.
///
/// ```
/// use amends::RetryPolicy;
/// use std::time::Duration;
/// let policy = RetryPolicy { attempts: Some(3), first: Duration::from_secs(1), longest: Duration::from_secs(60) };
/// assert_eq!(policy.pause_after(1, 1.0), Some(Duration::from_secs(1)));
/// assert_eq!(policy.pause_after(2, 0.0), Some(Duration::from_secs(1)));
/// assert_eq!(policy.pause_after(3, 0.5), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How many attempts there are in all; `None` means that it never gives up.
    pub attempts: Option<u32>,
    /// The pause after the first failed attempt.
    pub first: Duration,
    /// No pause is longer than this.
    pub longest: Duration,
}

impl RetryPolicy {
    /// For steps before the pivot: 8 attempts over about a minute, then the saga compensates.
    pub const STEP: Self =
        Self { attempts: Some(8), first: Duration::from_millis(200), longest: Duration::from_secs(30) };
    /// For steps after the pivot: for ever, since there is no way back.
    pub const FORWARD: Self = Self { attempts: None, ..Self::STEP };
    /// For compensations: 30 attempts over about two hours, then the saga is parked for an operator.
    pub const COMPENSATION: Self =
        Self { attempts: Some(30), first: Duration::from_millis(200), longest: Duration::from_mins(5) };

    /// The pause after `attempt` (counted from 1) has failed; `None` when it was the last.
    /// `jitter` in `0.0..=1.0` chooses within the upper half of the pause.
    pub fn pause_after(&self, attempt: u32, jitter: f64) -> Option<Duration> {
        if self.attempts.is_some_and(|most| attempt >= most) {
            return None;
        }
        let doubled = self.first.saturating_mul(1_u32 << attempt.saturating_sub(1).min(30));
        let full = doubled.min(self.longest);
        Some(full / 2 + (full / 2).mul_f64(jitter.clamp(0.0, 1.0)))
    }
}
