//! Held messages get another chance, in their order.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use amends_postgres::cursor::{Due, Lane, Page, Sequenced};
use tokio::time::Instant;

use crate::RelayError;
use crate::relay::breaker::Breakers;
use crate::relay::routes::{Exchange, Routes};
use crate::relay::wave::UNANSWERED;
use crate::relay::window::{Ordering, Wave, Window};

/// How many are tried in one round.
pub(super) const AT_ONCE: usize = 500;
/// How long a round may last.
const LONGEST: Duration = Duration::from_millis(250);
/// The pause after a round in which nothing got through.
const AGAIN: Duration = Duration::from_millis(500);
/// A message without an answer is tried again after so long. It may come twice then.
const UNANSWERED_AGAIN: Duration = Duration::from_secs(30);
/// Why a message waits for the next round.
const LATER: &str = "others have their turn";

/// Held messages that are due, in a window of their own.
///
/// Only while that of the lane is empty: a key that is emptied here returns to the fast path, and no message of it may be under
/// way there.
pub(super) struct Round {
    pub(super) window: Window,
    /// Where each goes.
    exchanges: Vec<Exchange>,
    pub(super) began: Instant,
    until: Instant,
}

impl Round {
    pub(super) fn new(due: Due, routes: &Routes, began: Instant) -> Self {
        let (messages, exchanges): (Vec<Sequenced>, Vec<Exchange>) = due
            .messages
            .into_iter()
            .map(|held| {
                let exchange = held.exchange.map_or_else(|| routes.exchange(&held.message.message), Exchange::from);
                (held.message, exchange)
            })
            .unzip();
        let mut window = Window::new(Ordering::Strict, 1);
        let mut each = exchanges.iter();
        window.push(Page::of(messages), |_| false, |_| each.next().map(Arc::clone).unwrap_or_default());
        Self { window, exchanges, began, until: began + LONGEST }
    }

    /// No more of them are published for now.
    pub(super) fn end(&mut self) {
        self.until = self.began;
    }

    /// As [`Window::next_wave`]; when its time is over, the round leaves what is left.
    pub(super) fn next_wave(
        &mut self,
        most: usize,
        channel: usize,
        shut: impl Fn(&Exchange) -> Option<String>,
    ) -> Option<Wave> {
        let is_over = Instant::now() >= self.until;
        self.window.next_wave(most, channel, |exchange| if is_over { Some(LATER.to_owned()) } else { shut(exchange) })
    }

    /// Records what became of them, once all have a verdict; the answer is how long the others wait then.
    pub(super) async fn settle(
        &mut self,
        lane: &mut Lane,
        breakers: &Breakers,
        most_attempts: i32,
    ) -> Result<Option<Duration>, RelayError> {
        let Some((page, left)) = self.window.settled() else { return Ok(None) };
        let now = Instant::now();
        let (mut refused, mut postponed, mut unanswered, mut pause) = (Vec::new(), Vec::new(), Vec::new(), AGAIN);
        for (index, was_refused, reason) in &left {
            let seq = page.messages[*index].seq;
            if *was_refused {
                refused.push((seq, reason.as_str()));
            } else if reason == UNANSWERED {
                unanswered.push((seq, UNANSWERED));
            } else if let Some((longer, _)) = breakers.shut(&self.exchanges[*index], now) {
                pause = pause.max(longer);
                postponed.push((seq, reason.as_str()));
            }
        }
        let left: HashSet<usize> = left.iter().map(|(index, ..)| *index).collect();
        let messages = page.messages.iter().enumerate();
        let published: Vec<&Sequenced> =
            messages.filter(|(index, _)| !left.contains(index)).map(|(_, message)| message).collect();
        if !refused.is_empty() {
            lane.refused_held(&refused, most_attempts).await?;
        }
        if !postponed.is_empty() {
            lane.postpone_held(&postponed, pause).await?;
        }
        if !unanswered.is_empty() {
            lane.postpone_held(&unanswered, UNANSWERED_AGAIN).await?;
        }
        if published.is_empty() {
            return Ok(Some(AGAIN));
        }
        lane.settle_held(&published).await?;
        Ok(Some(Duration::ZERO))
    }
}
