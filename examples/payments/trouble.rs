//! A service as services are: slow at times, down at times, and at times it does the work and loses the answer.

use std::sync::Mutex;
use std::time::Duration;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// It is answered late.
    Slow(Duration),
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

    pub(crate) fn next(&self) -> Trouble {
        let mut dice = self.dice.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if dice.u8(..100) >= self.percent {
            return Trouble::None;
        }
        match dice.u8(..3) {
            0 => Trouble::Slow(Duration::from_millis(dice.u64(50..2_500))),
            1 => Trouble::Unavailable,
            _ => Trouble::AnswerLost,
        }
    }
}
