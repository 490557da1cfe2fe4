//! Held messages get another chance, in their order.

use std::collections::HashMap;
use std::time::Duration;

use amends_postgres::cursor::{Due, Lane, Page, Sequenced};
use lapin::Channel;
use tokio::time::Instant;

use crate::relay::breaker::Breakers;
use crate::relay::routes::Exchange;
use crate::relay::wave::{self, Target, Verdict};
use crate::relay::window::{Ordering, Window};
use crate::{RelayError, broker, telemetry};

/// How many held messages are tried in one go.
const AT_ONCE: usize = 500;
/// How long the flow may pause for them.
const LONGEST: Duration = Duration::from_secs(1);
/// An operator may have released one.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a round of them needs.
pub(super) struct Round<'a> {
    pub(super) lane: &'a mut Lane,
    pub(super) connection: &'a lapin::Connection,
    pub(super) channel: &'a mut Channel,
    pub(super) target: &'a Target,
    pub(super) breakers: &'a mut Breakers,
    pub(super) most_attempts: i32,
}

impl Round<'_> {
    /// Publishes what is due, until nothing is, or for a second at most; the answer is when to come again.
    ///
    /// Only while the window is empty: a key that is emptied here returns to the fast path, and no message of it may be
    /// under way there.
    pub(super) async fn run(mut self) -> Result<Instant, RelayError> {
        let began = Instant::now();
        loop {
            let due = self.lane.due_held(AT_ONCE).await?;
            let next = due.next.unwrap_or(LOOK_EVERY).clamp(Duration::from_millis(100), LOOK_EVERY);
            if due.messages.is_empty() {
                return Ok(Instant::now() + next);
            }
            let is_better = self.publish(due).await?;
            if began.elapsed() > LONGEST || !is_better {
                return Ok(Instant::now() + Duration::from_millis(500));
            }
        }
    }

    /// A window of their own: one after the other of a key, and none behind one that fails. `true` if any was published.
    async fn publish(&mut self, due: Due) -> Result<bool, RelayError> {
        let (mut messages, mut rerouted) = (Vec::with_capacity(due.messages.len()), HashMap::new());
        for held in due.messages {
            if let Some(exchange) = held.exchange {
                rerouted.insert(held.message.seq, Exchange::from(exchange));
            }
            messages.push(held.message);
        }
        let seqs: Vec<i64> = messages.iter().map(|message| message.seq).collect();
        let mut window = Window::new(Ordering::Strict, 1);
        let routes = &self.target.routes;
        let exchange = |sequenced: &Sequenced| match rerouted.get(&sequenced.seq) {
            Some(exchange) => Exchange::clone(exchange),
            None => routes.exchange(&sequenced.message),
        };
        window.push(Page::of(messages), |_| false, exchange);
        while let Some(wave) = window.next_wave(AT_ONCE, 0, |exchange| {
            self.breakers.shut(exchange, Instant::now()).map(|(_, reason)| reason.to_owned())
        }) {
            let sent: Vec<&Sequenced> = wave.messages().collect();
            let verdicts = wave::publish(self.channel, self.target, &wave.exchange, &sent).await?;
            drop(sent);
            if !self.channel.status().connected() {
                *self.channel = broker::confirmed_channel(self.connection).await?;
            }
            self.breakers.learn(&wave.exchange, &verdicts, Instant::now());
            window.judge(wave, verdicts);
        }
        let Some((page, left)) = window.settled() else { return Ok(false) };
        let (mut refused, mut postponed) = (Vec::new(), Vec::new());
        let mut pause = Duration::from_millis(500);
        for (index, was_refused, reason) in &left {
            let sequenced = &page.messages[*index];
            if *was_refused {
                refused.push((sequenced.seq, reason.as_str()));
            } else if let Some((longer, _)) = self.breakers.shut(&exchange(sequenced), Instant::now()) {
                pause = pause.max(longer);
                postponed.push((sequenced.seq, reason.as_str()));
            }
        }
        let published: Vec<i64> = seqs
            .into_iter()
            .enumerate()
            .filter(|(at, _)| !left.iter().any(|(index, ..)| index == at))
            .map(|(_, seq)| seq)
            .collect();
        metrics::counter!(telemetry::REFUSED).increment(refused.len() as u64);
        metrics::counter!(telemetry::PUBLISHED).increment(published.len() as u64);
        if !refused.is_empty() {
            self.lane.refused_held(&refused, self.most_attempts).await?;
        }
        if !postponed.is_empty() {
            self.lane.postpone_held(&postponed, pause).await?;
        }
        if !published.is_empty() {
            self.lane.settle_held(&published).await?;
        }
        Ok(!published.is_empty())
    }
}

impl Breakers {
    /// Learns from what became of a wave.
    pub(super) fn learn(&mut self, exchange: &Exchange, verdicts: &[Verdict], now: Instant) {
        for verdict in verdicts {
            match verdict {
                Verdict::Unreachable(reason) => self.trip(exchange, reason, now),
                Verdict::Published | Verdict::Refused(_) => self.reset(exchange),
                Verdict::Unknown => {}
            }
        }
    }
}
