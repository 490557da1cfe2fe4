//! A lane for as long as one connection to the broker and one to the database hold.

use std::sync::Arc;
use std::time::Duration;

use amends_postgres::Hints;
use amends_postgres::cursor::{Lane, LaneError};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::{self, Broker};
use crate::pauses::Pauses;
use crate::relay::state::Gate;
use crate::relay::wake::Wake;
use crate::relay::{RelayOptions, RelayState, pump};
use crate::{RelayError, telemetry};

/// The longest pause before a lane is tried again.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A relay's claim to a lane.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) pool: PgPool,
    pub(super) url: Broker,
    pub(super) hints: Hints,
    pub(super) relay: Uuid,
    pub(super) options: RelayOptions,
    pub(super) lane: i16,
    pub(super) state: Arc<RelayState>,
}

impl Session {
    /// Reads the lane until `stop`, through every failure: it backs off, connects anew and goes on from the cursor. What had no
    /// confirm by then is published again. It ends early if another relay has the lane.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        while !stop.is_cancelled() {
            let began = Instant::now();
            let Err(error) = self.once(&stop).await else { return };
            // One that fails again soon, having got the lane or not, must not come back at once for ever.
            if began.elapsed() > LONGEST_PAUSE {
                pauses.restart();
            }
            let pause = pauses.take();
            tracing::warn!(lane = self.lane, %error, retry_in = ?pause, "the relay's session ended; connecting anew");
            metrics::counter!(telemetry::RECONNECTS).increment(1);
            if !matches!(error, RelayError::Lane(LaneError::Lost)) {
                self.state.lane_fails(self.lane, &error);
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The broker comes first: a relay that cannot publish must not hold the lane. So does the topology: the broker may have lost it
    /// with the connection, and a queue that is not bound yet would miss what others get.
    async fn once(&self, stop: &CancellationToken) -> Result<(), RelayError> {
        let name = format!("{} lane {}", self.options.name, self.lane);
        let connection = broker::connect(&self.url, &name).await?;
        let worked = self.once_on(&connection, stop).await;
        broker::close(&connection).await;
        worked
    }

    async fn once_on(&self, connection: &lapin::Connection, stop: &CancellationToken) -> Result<(), RelayError> {
        let options = &self.options;
        options.topology.provide(connection).await?;
        match Lane::acquire(&self.pool, self.lane, self.relay, &options.name, options.lease).await {
            Ok(Some(lane)) => self.work(lane, connection, stop).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn work(
        &self,
        mut lane: Lane,
        connection: &lapin::Connection,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        metrics::gauge!(telemetry::ACTIVE).increment(1.0);
        let wake = Wake::new(self.hints.outbox(), self.options.poll);
        let gate = Gate::new(&self.state, self.lane);
        let result = pump::run(&mut lane, connection, &self.options, gate, wake, stop).await;
        metrics::gauge!(telemetry::ACTIVE).decrement(1.0);
        // A lane that was lost is not ours to release; otherwise others need not wait.
        if let Err(error) = lane.release().await {
            tracing::warn!(%error, "cannot release the lane; another relay takes it when the lease has run out");
        }
        result
    }
}
