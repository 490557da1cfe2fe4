//! A service as services are: never quick, slow at times, down at times, and at times it works and loses the answer.

use std::sync::Mutex;
use std::time::Duration;

/// What a request meets with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    /// How long it takes to ask the bank.
    pub(crate) pause: Duration,
    /// What goes wrong.
    pub(crate) trouble: Trouble,
}

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// It is turned away before anything is done.
    Unavailable,
    /// It is carried out, and the answer is lost.
    AnswerLost,
}

/// Draws the troubles; the same seed draws the same ones in the same order.
#[derive(Debug)]
pub(crate) struct Troubles {
    dice: Mutex<fastrand::Rng>,
    percent: u8,
}

impl Troubles {
    pub(crate) fn new(seed: u64, percent: u8) -> Self {
        Self { dice: Mutex::new(fastrand::Rng::with_seed(seed)), percent }
    }

    pub(crate) fn next(&self) -> Fate {
        let mut dice = self.dice.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let quick = Duration::from_millis(dice.u64(50..350));
        if dice.u8(..100) >= self.percent {
            return Fate { pause: quick, trouble: Trouble::None };
        }
        match dice.u8(..3) {
            // Some of these are too late for whoever asked.
            0 => Fate { pause: Duration::from_millis(dice.u64(500..2_500)), trouble: Trouble::None },
            1 => Fate { pause: quick, trouble: Trouble::Unavailable },
            _ => Fate { pause: quick, trouble: Trouble::AnswerLost },
        }
    }
}
