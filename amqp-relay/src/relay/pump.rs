//! The loop of a lane's relay: read pages ahead, publish waves on a few channels, settle in order.

use std::sync::Arc;
use std::time::Duration;

use amends_postgres::cursor::Lane;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lapin::{Channel, Connection, Event};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::broker::{self, short};
use crate::relay::RelayOptions;
use crate::relay::breaker::Breakers;
use crate::relay::held::{self, Round};
use crate::relay::routes::Routes;
use crate::relay::size::WaveSize;
use crate::relay::state::Gate;
use crate::relay::wake::Wake;
use crate::relay::wave::{self, Target, Verdict};
use crate::relay::window::{Wave, Window, unpublished};
use crate::{RelayError, TopologyMode, telemetry};

/// An operator may have released a held message.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// However much is held: while there is a backlog, the flow has so many times the time that held messages take.
const FLOW_FIRST: u32 = 4;

/// How long nothing may come for a wave of held messages, as nothing else is published meanwhile; and for any after one that had no answer:
/// the queue that gives none gets messages of other keys too.
const SHORT_DEADLINE: Duration = Duration::from_secs(2);
/// For so long after one.
const WARY: Duration = Duration::from_mins(1);

/// Nothing is read ahead of so many bytes.
const MOST_BYTES: usize = 8 << 20;

/// Waves on so many channels overlap: while one waits for its last confirms, others are on their way.
const CHANNELS: usize = 4;

struct Pump<'a> {
    lane: &'a mut Lane,
    connection: &'a Connection,
    options: &'a RelayOptions,
    gate: Gate<'a>,
    target: Target,
    window: Window,
    size: WaveSize,
    /// Held messages that are tried again; the window is empty then.
    round: Option<Round>,
    breakers: Breakers,
    /// Channels without a wave.
    idle: Vec<(usize, Channel)>,
    flying: FuturesUnordered<BoxFuture<'static, Result<Flown, RelayError>>>,
    /// The last read found less than a page.
    drained: bool,
    /// There was a page behind the last one that was read.
    has_backlog: bool,
    next_held: Instant,
    /// A wave was not answered lately.
    wary_until: Instant,
    wake: Wake,
}

/// A wave that has come down, and its channel.
struct Flown {
    number: usize,
    channel: Channel,
    wave: Wave,
    verdicts: Vec<Verdict>,
    took: Duration,
}

/// Runs until `shutdown`, or until the lane has nothing left to do, then finishes what it has read.
pub(super) async fn run(
    lane: &mut Lane,
    connection: &Connection,
    options: &RelayOptions,
    gate: Gate<'_>,
    wake: Wake,
    shutdown: &CancellationToken,
) -> Result<(), RelayError> {
    let target = Target {
        routes: Arc::new(Routes::new(&options.exchange, &options.routes)),
        source: options.source.clone(),
        reply_to: options.replies.as_ref().map(|queue| short("reply queue", &queue.name)).transpose()?,
        deadline: options.confirm_deadline,
        most_headers: wave::most_headers(connection.configuration().frame_max()),
        status: connection.status().clone(),
    };
    let mut idle = Vec::with_capacity(CHANNELS);
    for number in 0..CHANNELS {
        idle.push((number, broker::confirmed_channel(connection).await?));
    }
    let pump = Pump {
        lane,
        connection,
        options,
        gate,
        target,
        window: Window::new(options.ordering, CHANNELS),
        size: WaveSize::up_to(options.wave),
        round: None,
        breakers: Breakers::default(),
        idle,
        flying: FuturesUnordered::new(),
        drained: false,
        has_backlog: false,
        next_held: Instant::now(),
        wary_until: Instant::now(),
        wake,
    };
    pump.run(shutdown).await
}

impl Pump<'_> {
    async fn run(mut self, shutdown: &CancellationToken) -> Result<(), RelayError> {
        let mut events = Box::pin(self.connection.events_listener());
        let every = self.options.lease / 4;
        let mut renewal = interval_at(Instant::now() + every, every);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stopping = shutdown.is_cancelled() || self.lane.has_arrived();
            if !stopping {
                self.refill().await?;
            } else if let Some(round) = &mut self.round {
                round.end();
            }
            self.reopen().await?;
            self.launch();
            self.settle().await?;
            // What is on its way to a broker that takes nothing is published again by whoever has the lane next.
            let gives_up = shutdown.is_cancelled() && self.is_blocked();
            if stopping && (self.is_settled() || gives_up) {
                return Ok(());
            }
            if self.is_settled() {
                self.retry_held().await?;
            }
            let until_held = if self.lane.has_held() { self.next_held - Instant::now() } else { Duration::MAX };
            tokio::select! {
                Some(flown) = self.flying.next(), if !self.flying.is_empty() => self.judge(flown?),
                _ = renewal.tick() => {
                    self.lane.renew().await?;
                    self.gate.works();
                }
                event = events.next() => on_event(event, &self.gate)?,
                () = self.wake.up(until_held), if self.drained => self.drained = false,
                () = shutdown.cancelled(), if !stopping => {}
                // A window that has pages and nothing flying has something to settle or to launch at once.
                () = std::future::ready(()), if self.has_more() => {}
            }
        }
    }

    fn has_more(&self) -> bool {
        let may_read = self.is_settled() && !self.drained && !self.lane.has_arrived();
        self.flying.is_empty() && !self.is_blocked() && (may_read || !self.is_settled())
    }

    fn is_settled(&self) -> bool {
        self.window.is_empty() && self.round.is_none()
    }

    /// The broker takes nothing for now. What is on its way waits; it is no verdict.
    fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Keeps a page ahead of what is being published. Held messages that are due get the window to themselves.
    async fn refill(&mut self) -> Result<(), RelayError> {
        while !self.drained
            && self.window.pending() < self.options.page / 2
            && self.window.bytes() < MOST_BYTES
            && !self.held_is_due()
            && !self.is_blocked()
        {
            let page = self.lane.read(self.options.page).await?;
            self.drained = !page.full;
            self.has_backlog = page.full;
            if !page.messages.is_empty() {
                self.wake.busy();
            }
            let (lane, routes) = (&*self.lane, &self.target.routes);
            self.window.push(page, |key| lane.is_held(key), |sequenced| routes.exchange(&sequenced.message));
        }
        Ok(())
    }

    /// Or under way.
    fn held_is_due(&self) -> bool {
        self.round.is_some() || (self.lane.has_held() && Instant::now() >= self.next_held)
    }

    /// The broker closes a channel over a message, or over an exchange that is not there.
    async fn reopen(&mut self) -> Result<(), RelayError> {
        for (_, channel) in &mut self.idle {
            if !channel.status().connected() {
                *channel = broker::confirmed_channel(self.connection).await?;
            }
        }
        Ok(())
    }

    fn launch(&mut self) {
        if self.is_blocked() {
            return;
        }
        let now = Instant::now();
        let channels = std::mem::take(&mut self.idle);
        for (idle, (number, channel)) in (1..=channels.len()).rev().zip(channels) {
            let breakers = &self.breakers;
            let shut = |exchange: &_| breakers.shut(exchange, now).map(|(_, reason)| reason.to_owned());
            let most = |window: &Window| self.size.get().min(window.share(idle));
            let wave = match &mut self.round {
                Some(round) => round.next_wave(most(&round.window), number, shut),
                None => self.window.next_wave(most(&self.window), number, shut),
            };
            let Some(wave) = wave else {
                self.idle.push((number, channel));
                continue;
            };
            let mut target = self.target.clone();
            if self.round.is_some() || now < self.wary_until {
                target.deadline = target.deadline.min(SHORT_DEADLINE);
            }
            self.flying.push(Box::pin(async move {
                let began = Instant::now();
                let messages: Vec<_> = wave.messages().collect();
                let verdicts = wave::publish(&channel, &target, &wave.exchange, &messages).await?;
                Ok(Flown { number, channel, wave, verdicts, took: began.elapsed() })
            }));
        }
    }

    fn judge(&mut self, flown: Flown) {
        let Flown { number, channel, wave, verdicts, took } = flown;
        self.idle.push((number, channel));
        if verdicts.contains(&Verdict::Unanswered) {
            tracing::warn!(%wave.exchange, "the broker confirms some messages and not others; they are held, others flow on");
            self.wary_until = Instant::now() + WARY;
        } else {
            self.size.learn(verdicts.len(), took);
        }
        let now = chrono::Utc::now();
        if let Some(oldest) = wave.messages().map(|message| message.created_at).min() {
            metrics::histogram!(telemetry::DELAY_SECONDS).record((now - oldest).as_seconds_f64().max(0.0));
        }
        if let Some(reason) = self.breakers.learn(&wave.exchange, &verdicts, Instant::now()) {
            let exchange = &wave.exchange;
            tracing::warn!(%exchange, reason, "an exchange takes nothing; its messages are held, others flow on");
        }
        let exchange = Arc::clone(&wave.exchange);
        let window = self.round.as_mut().map_or(&mut self.window, |round| &mut round.window);
        let (published, reasons) = window.judge(wave, verdicts);
        metrics::counter!(telemetry::PUBLISHED).increment(published as u64);
        metrics::counter!(telemetry::REFUSED).increment(reasons.len() as u64);
        if let Some(reason) = reasons.first() {
            let messages = reasons.len();
            tracing::warn!(messages, %exchange, reason, "the broker refused messages; they are held, others flow on");
        }
    }

    async fn settle(&mut self) -> Result<(), RelayError> {
        while let Some((page, left)) = self.window.settled() {
            self.lane.settle(&page, &unpublished(&page, &left)).await?;
            self.gate.works();
        }
        if let Some(round) = &mut self.round
            && let Some(pause) = round.settle(self.lane, &self.breakers, self.options.most_attempts).await?
        {
            let began = round.began;
            self.round = None;
            self.rest(began, pause);
        }
        Ok(())
    }

    /// Begins a round of held messages, if any is due.
    async fn retry_held(&mut self) -> Result<(), RelayError> {
        if !self.held_is_due() || self.is_blocked() {
            return Ok(());
        }
        let began = Instant::now();
        let due = self.lane.due_held(held::AT_ONCE).await?;
        if due.messages.is_empty() {
            let next = due.next.unwrap_or(LOOK_EVERY).clamp(Duration::from_millis(100), LOOK_EVERY);
            self.rest(began, next);
            return Ok(());
        }
        if self.options.topology.mode == TopologyMode::Declare {
            // An exchange or a queue may have been deleted. What cannot be declared is missed by its own messages alone.
            if let Err(error) = self.options.topology.provide(self.connection).await {
                tracing::warn!(%error, "cannot declare the topology again");
            }
        }
        self.round = Some(Round::new(due, &self.target.routes, began));
        Ok(())
    }

    /// Leaves the held messages alone for a while after what `began` then, a pause at least.
    fn rest(&mut self, began: Instant, pause: Duration) {
        let share = if self.has_backlog { FLOW_FIRST } else { 1 };
        self.next_held = Instant::now() + pause.max(began.elapsed() * share);
    }
}

fn on_event(event: Option<Event>, gate: &Gate<'_>) -> Result<(), RelayError> {
    match event {
        // A channel was closed: its wave knows.
        Some(Event::Error(error)) if error.is_amqp_soft_error() => Ok(()),
        Some(Event::Error(error)) => Err(error.into()),
        Some(Event::ConnectionBlocked(reason)) => {
            gate.close(&reason);
            tracing::warn!(reason, "the broker blocks publishing; waiting");
            Ok(())
        }
        Some(Event::ConnectionUnblocked) => {
            gate.open();
            tracing::info!("the broker takes messages again");
            Ok(())
        }
        Some(_) => Ok(()),
        None => Err(RelayError::Deadline { what: "anything: the connection is gone", limit: Duration::ZERO }),
    }
}
