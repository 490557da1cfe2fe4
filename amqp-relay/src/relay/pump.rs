//! The loop of the active relay: read pages ahead, publish waves on a few channels, settle in order.

use std::time::Duration;

use amends_postgres::cursor::{Lane, Sequenced};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lapin::{Channel, Connection, Event};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::broker::short;
use crate::relay::RelayOptions;
use crate::relay::wake::Wake;
use crate::relay::wave::{self, Target, Verdict};
use crate::relay::window::{Wave, Window, unpublished};
use crate::{RelayError, telemetry};

/// How long held messages may wait before the flow pauses for them.
const HELD_EVERY: Duration = Duration::from_millis(500);
/// How many held messages are tried in one go.
const HELD_AT_ONCE: usize = 500;

type Judged = (usize, Wave, Result<Vec<Verdict>, RelayError>);

struct Pump<'a> {
    lane: &'a mut Lane,
    channels: &'a [Channel],
    options: &'a RelayOptions,
    target: Target,
    window: Window,
    idle_channels: Vec<usize>,
    flying: FuturesUnordered<BoxFuture<'static, Judged>>,
    /// The last read found less than a page.
    drained: bool,
    next_held: Instant,
    wake: Wake,
}

/// Runs until `shutdown`, then finishes what it has read.
pub(super) async fn run(
    lane: &mut Lane,
    connection: &Connection,
    channels: &[Channel],
    options: &RelayOptions,
    wake: Wake,
    shutdown: &CancellationToken,
) -> Result<(), RelayError> {
    let target = Target {
        exchange: short("exchange", &options.exchange)?,
        source: options.source.clone(),
        reply_to: options.replies.as_ref().map(|queue| short("reply queue", &queue.name)).transpose()?,
        deadline: options.confirm_deadline,
    };
    let pump = Pump {
        lane,
        channels,
        options,
        target,
        window: Window::new(options.ordering),
        idle_channels: (0..channels.len()).collect(),
        flying: FuturesUnordered::new(),
        drained: false,
        next_held: Instant::now(),
        wake,
    };
    pump.run(connection, shutdown).await
}

impl Pump<'_> {
    async fn run(mut self, connection: &Connection, shutdown: &CancellationToken) -> Result<(), RelayError> {
        let mut events = Box::pin(connection.events_listener());
        let mut renewal = interval(self.options.lease / 4);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stopping = shutdown.is_cancelled();
            if !stopping {
                self.refill().await?;
            }
            self.launch();
            self.settle().await?;
            if self.window.is_empty() {
                if stopping {
                    return Ok(());
                }
                self.retry_held().await?;
            }
            let until_held = if self.lane.has_held() { self.next_held - Instant::now() } else { Duration::MAX };
            tokio::select! {
                Some((channel, wave, verdicts)) = self.flying.next(), if !self.flying.is_empty() => {
                    self.idle_channels.push(channel);
                    self.judge(&wave, verdicts?);
                }
                _ = renewal.tick() => self.lane.renew().await?,
                event = events.next() => on_event(event)?,
                () = self.wake.up(until_held), if self.drained => self.drained = false,
                () = shutdown.cancelled(), if !stopping => {}
                // A window that has pages and nothing flying has something to settle or to launch at once.
                () = std::future::ready(()), if self.flying.is_empty() && !(self.window.is_empty() && self.drained) => {}
            }
        }
    }

    /// Keeps a page ahead of what is being published. Held messages that are due get the window to themselves.
    async fn refill(&mut self) -> Result<(), RelayError> {
        while !self.drained && self.window.pending() < self.options.page / 2 && !self.held_is_due() {
            let page = self.lane.read(self.options.page).await?;
            self.drained = !page.full;
            if !page.messages.is_empty() {
                self.wake.busy();
            }
            let lane = &*self.lane;
            self.window.push(page, |key| lane.is_held(key));
        }
        Ok(())
    }

    fn held_is_due(&self) -> bool {
        self.lane.has_held() && Instant::now() >= self.next_held
    }

    fn launch(&mut self) {
        while let Some(&channel) = self.idle_channels.last() {
            let Some(wave) = self.window.next_wave(self.options.wave) else { return };
            self.idle_channels.pop();
            let messages: Vec<Sequenced> = self.window.messages(&wave).cloned().collect();
            let (on, target) = (self.channels[channel].clone(), self.target.clone());
            self.flying.push(Box::pin(async move {
                let verdicts = wave::publish(&on, &target, &messages.iter().collect::<Vec<_>>()).await;
                (channel, wave, verdicts)
            }));
        }
    }

    fn judge(&mut self, wave: &Wave, verdicts: Vec<Verdict>) {
        let now = chrono::Utc::now();
        if let Some(oldest) = self.window.messages(wave).map(|message| message.created_at).min() {
            metrics::histogram!(telemetry::DELAY_SECONDS).record((now - oldest).as_seconds_f64().max(0.0));
        }
        let (published, reasons) = self.window.judge(wave, verdicts);
        metrics::counter!(telemetry::PUBLISHED).increment(published as u64);
        metrics::counter!(telemetry::REFUSED).increment(reasons.len() as u64);
        if let Some(reason) = reasons.first() {
            tracing::warn!(
                messages = reasons.len(),
                reason,
                "the broker refused messages; they are held, others flow on"
            );
        }
    }

    async fn settle(&mut self) -> Result<(), RelayError> {
        while let Some((page, left)) = self.window.settled() {
            self.lane.settle(&page, &unpublished(&page, &left)).await?;
        }
        Ok(())
    }

    /// Only while the window is empty: a key that is emptied here returns to the fast path, and no message of it may be
    /// under way there.
    async fn retry_held(&mut self) -> Result<(), RelayError> {
        if !self.held_is_due() {
            return Ok(());
        }
        self.next_held = Instant::now() + HELD_EVERY;
        loop {
            let due = self.lane.due_held(HELD_AT_ONCE).await?;
            if due.is_empty() {
                return Ok(());
            }
            let messages: Vec<&Sequenced> = due.iter().map(|held| &held.message).collect();
            let verdicts = wave::publish(&self.channels[0], &self.target, &messages).await?;
            let mut published = Vec::new();
            for (held, verdict) in due.iter().zip(verdicts) {
                match verdict {
                    Verdict::Published => published.push(held.message.seq),
                    Verdict::Refused(reason) => {
                        metrics::counter!(telemetry::REFUSED).increment(1);
                        self.lane.refused_held(held.message.seq, &reason, self.options.most_attempts).await?;
                    }
                }
            }
            metrics::counter!(telemetry::PUBLISHED).increment(published.len() as u64);
            if published.is_empty() {
                return Ok(());
            }
            self.lane.settle_held(&published).await?;
        }
    }
}

fn on_event(event: Option<Event>) -> Result<(), RelayError> {
    match event {
        Some(Event::Error(error)) => Err(error.into()),
        Some(Event::ConnectionBlocked(reason)) => {
            tracing::warn!(reason, "the broker blocks publishing; waiting");
            Ok(())
        }
        Some(Event::ConnectionUnblocked) => {
            tracing::info!("the broker takes messages again");
            Ok(())
        }
        Some(_) => Ok(()),
        None => Err(RelayError::Deadline { what: "anything: the connection is gone", limit: Duration::ZERO }),
    }
}
