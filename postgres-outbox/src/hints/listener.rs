//! Hears what other processes tell, and knows whether it hears.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use tokio::time::{Instant, sleep, sleep_until};

use super::{ECHO, News, OUTBOX, SAGAS, State};

/// An own echo must be heard within this time.
const ECHO_WITHIN: Duration = Duration::from_secs(5);
/// How often it asks for one: a connection may be dead without a word, or behind a pooler that hears for somebody else.
const ECHO_EVERY: Duration = Duration::from_secs(30);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Until the last [`Hints`](super::Hints) of the database is gone. A connection that is lost is made anew.
pub(super) async fn run(state: Arc<State>) {
    let mut pause = SHORTEST_PAUSE;
    while !state.closed.is_cancelled() {
        let mut has_heard = false;
        let Err(error) = listen(&state, &mut has_heard).await else { return };
        state.set_reliable(false);
        if has_heard {
            pause = SHORTEST_PAUSE;
            tracing::info!(%error, retry_in = ?pause, "the listener for hints is gone; polling more often until it is back");
        } else {
            tracing::debug!(%error, retry_in = ?pause, "cannot listen for hints; polling more often");
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = state.closed.cancelled() => return,
        }
    }
}

/// One connection; it ends without an error only with the hints.
async fn listen(state: &State, has_heard: &mut bool) -> Result<(), sqlx::Error> {
    // A pool for each: a listener that is given up goes back to its pool, where it may be stuck.
    let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let pool = pool.acquire_timeout(Duration::from_secs(10)).connect_lazy_with(state.options());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.ignore_pool_close_event(true);
    listener.eager_reconnect(false);
    listener.listen_all([OUTBOX, SAGAS, ECHO]).await?;
    let origin = state.origin.to_string();
    let mut echo = Echo::ask(state);
    loop {
        tokio::select! {
            notification = listener.try_recv() => {
                let notification = notification?.ok_or(sqlx::Error::WorkerCrashed)?;
                if notification.payload() != origin {
                    state.ring(news(&notification));
                    continue;
                }
                // Those of this process know of it.
                echo.heard();
                if !std::mem::replace(has_heard, true) {
                    state.set_reliable(true);
                    // Of what others committed before, nobody has told us.
                    state.ring(News { outbox: true, sagas: true });
                }
            }
            () = sleep_until(echo.next) => {
                if echo.is_awaited {
                    return Err(sqlx::Error::Protocol(format!("own hint not heard within {ECHO_WITHIN:?}")));
                }
                echo = Echo::ask(state);
            }
            () = state.closed.cancelled() => return Ok(()),
        }
    }
}

fn news(notification: &PgNotification) -> News {
    match notification.channel() {
        OUTBOX => News::OUTBOX,
        SAGAS => News::SAGAS,
        _ => News::default(),
    }
}

/// A hint of this process that comes back to it proves that hints are heard.
struct Echo {
    is_awaited: bool,
    next: Instant,
}

impl Echo {
    fn ask(state: &State) -> Self {
        if state.pending().ask_for_echo() {
            state.armed.notify_one();
        }
        Self { is_awaited: true, next: Instant::now() + ECHO_WITHIN }
    }

    fn heard(&mut self) {
        (self.is_awaited, self.next) = (false, Instant::now() + ECHO_EVERY);
    }
}
