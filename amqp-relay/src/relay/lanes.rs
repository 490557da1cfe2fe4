//! A relay among others: it takes its share of the lanes, gives back what is too much, and ends an old layout.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use amends_postgres::cursor::Layout;
use lapin::Connection;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::broker;
use crate::pauses::{Pauses, jitter};
use crate::relay::session::{LONGEST_PAUSE, Session};
use crate::relay::{Relay, share};
use crate::{RelayError, telemetry};

/// The lanes that this relay reads, each in a task of its own. Dropped, all of them end at once.
#[derive(Default)]
struct Reading {
    sessions: JoinSet<i16>,
    stops: BTreeMap<i16, CancellationToken>,
}

impl Relay {
    /// Publishes its share of the lanes until `shutdown`.
    pub(super) async fn publish(&self, shutdown: &CancellationToken) {
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        let mut reading = Reading::default();
        while !shutdown.is_cancelled() {
            if let Err(error) = self.share_lanes(&mut reading, shutdown, &mut pauses).await {
                let pause = pauses.take();
                self.state.disconnected(&error);
                tracing::warn!(%error, retry_in = ?pause, "the relay cannot work now; trying again");
                metrics::counter!(telemetry::RECONNECTS).increment(1);
                // It takes no share while it cannot publish. Its sessions notice by themselves.
                _ = Layout::leave(&self.pool, self.id).await;
                tokio::select! {
                    () = sleep(pause) => {}
                    () = shutdown.cancelled() => {}
                }
            }
        }
        reading.stop_all().await;
        self.state.set_lanes(&BTreeSet::new());
        if let Err(error) = Layout::leave(&self.pool, self.id).await {
            tracing::warn!(%error, "cannot say that this relay is gone; the others notice when its lease has run out");
        }
        self.state.disconnected(&"it has stopped");
    }

    /// The broker comes first: a relay that cannot publish must not count among those that could.
    async fn share_lanes(
        &self,
        reading: &mut Reading,
        shutdown: &CancellationToken,
        pauses: &mut Pauses,
    ) -> Result<(), RelayError> {
        let connection = broker::connect(&self.url, &self.options.name).await?;
        let shared = self.share_lanes_on(&connection, reading, shutdown, pauses).await;
        broker::close(&connection).await;
        shared
    }

    async fn share_lanes_on(
        &self,
        connection: &Connection,
        reading: &mut Reading,
        shutdown: &CancellationToken,
        pauses: &mut Pauses,
    ) -> Result<(), RelayError> {
        let options = &self.options;
        options.topology.provide(connection).await?;
        self.state.connected();
        while !shutdown.is_cancelled() {
            if !connection.status().connected() {
                return Err(RelayError::Deadline { what: "heartbeat", limit: options.lease });
            }
            let layout = Layout::look(&self.pool, self.id, &options.name, options.lease).await?;
            pauses.restart();
            if layout.changing && Layout::finish(&self.pool).await? {
                tracing::info!("the number of lanes has been changed");
                continue;
            }
            let moves = share::moves(&layout, self.id, &reading.lanes());
            moves.give.into_iter().for_each(|lane| reading.stop(lane));
            moves.take.into_iter().for_each(|lane| reading.start(self.session(lane)));
            self.state.set_lanes(&reading.lanes());
            tokio::select! {
                () = sleep((options.lease / 5).mul_f64(jitter())) => {}
                // A lane that has met the others, or that another relay has.
                () = reading.ended() => {}
                () = shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    fn session(&self, lane: i16) -> Session {
        Session {
            pool: self.pool.clone(),
            url: self.url.clone(),
            hints: self.hints.clone(),
            relay: self.id,
            options: self.options.clone(),
            state: Arc::clone(&self.state),
            lane,
        }
    }
}

impl Reading {
    fn lanes(&self) -> BTreeSet<i16> {
        self.stops.keys().copied().collect()
    }

    fn start(&mut self, session: Session) {
        let (lane, stop) = (session.lane, CancellationToken::new());
        self.stops.insert(lane, stop.clone());
        self.sessions.spawn(async move {
            session.run(stop).await;
            lane
        });
    }

    /// It finishes what it has read.
    fn stop(&self, lane: i16) {
        if let Some(stop) = self.stops.get(&lane) {
            stop.cancel();
        }
    }

    /// Waits until one has ended; for ever if there is none.
    async fn ended(&mut self) {
        match self.sessions.join_next().await {
            Some(Ok(lane)) => _ = self.stops.remove(&lane),
            Some(Err(panic)) => {
                tracing::error!(%panic, "a lane's session panicked; that is a bug of amends. Its lanes begin anew");
                *self = Self::default();
            }
            None => std::future::pending().await,
        }
    }

    async fn stop_all(&mut self) {
        self.stops.values().for_each(CancellationToken::cancel);
        while !self.sessions.is_empty() {
            self.ended().await;
        }
    }
}
