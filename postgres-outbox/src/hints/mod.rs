//! Hints: relays and workers hear of what was committed, so that they need not wait for their next poll.
//!
//! A `NOTIFY` in a transaction takes a lock of the whole cluster at its commit, and nothing can be hooked behind the commit of a
//! user's transaction. So whoever writes arms a prober of this process, which asks after 1, 2, 4 … 64 ms whether the transaction
//! has committed, and then tells the relays and workers of this process, and with one `NOTIFY` for many those of others.
//! Hints may be lost; polling is the guarantee.

mod listener;
mod pending;
mod prober;
mod registry;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use amends::store::{Bell, BellListener};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use pending::{News, news};
pub(crate) use registry::{Written, written};

/// The channel on which relays hear of messages.
const OUTBOX: &str = "amends_outbox";
/// The channel on which workers hear of sagas that are due.
const SAGAS: &str = "amends_saga";
/// The channel on which a listener hears itself, to know that it hears at all.
const ECHO: &str = "amends_echo";

/// Tells relays and workers, in this process and in others, of what this process commits to a database.
///
/// Every [`PgStore`](crate::PgStore), relay and consumer holds one. A process that has none of them and publishes with
/// [`Outbox`](crate::Outbox) keeps one for as long as it runs; without it relays find its messages by polling.
///
/// All of a process on one database share it. It has a connection of its own from when something is first written, and another
/// while somebody listens. `LISTEN` does not work through a pooler of transactions, such as pgbouncer's; that is found out,
/// and those who listen poll more often instead.
///
/// ```no_run
/// use amends_postgres::Hints;
///
/// # async fn example() -> Result<(), sqlx::Error> {
/// let pool = sqlx::PgPool::connect("postgres://localhost/orders").await?;
/// let _hints = Hints::of(&pool);
/// // Outbox::publish(&mut tx, &message) …
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "what is published while nobody holds it is found by polling"]
pub struct Hints {
    shared: Arc<Shared>,
}

/// Its tasks end with it.
struct Shared {
    state: Arc<State>,
    prober: Mutex<Option<JoinHandle<()>>>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

/// What its tasks know.
struct State {
    /// Of the next connection.
    options: Mutex<PgConnectOptions>,
    /// Tells the hints of this process from others'.
    origin: Uuid,
    /// As the server calls it; unknown until the prober has connected.
    database: OnceLock<String>,
    pending: Mutex<pending::Pending>,
    armed: Notify,
    outbox: Bell,
    sagas: Bell,
    closed: CancellationToken,
}

impl Hints {
    /// The hints of this process about the database of `pool`. They use its address and its role, not its connections.
    pub fn of(pool: &PgPool) -> Self {
        registry::of(&pool.connect_options())
    }

    fn new(options: PgConnectOptions) -> Self {
        let state = State {
            options: Mutex::new(options.application_name("amends hints")),
            origin: Uuid::new_v4(),
            database: OnceLock::new(),
            pending: Mutex::default(),
            armed: Notify::new(),
            outbox: Bell::default(),
            sagas: Bell::default(),
            closed: CancellationToken::new(),
        };
        Self {
            shared: Arc::new(Shared { state: Arc::new(state), prober: Mutex::default(), listener: Mutex::default() }),
        }
    }

    /// Counts for the connections that are made from now on, as [`PgPool::set_connect_options`]: for a password that has changed.
    pub fn set_connect_options(&self, options: PgConnectOptions) {
        *self.shared.state.lock_options() = options.application_name("amends hints");
    }

    /// Hears of messages in the outbox.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime, on which it listens.
    pub fn outbox(&self) -> BellListener {
        self.listen();
        self.shared.state.outbox.listen()
    }

    /// Hears of sagas that are due.
    ///
    /// # Panics
    /// As [`outbox`](Self::outbox).
    pub fn sagas(&self) -> BellListener {
        self.listen();
        self.shared.state.sagas.listen()
    }

    /// This is committed.
    pub(crate) fn committed(&self, news: News) {
        if news.is_some() && self.shared.state.pending().commit(news) {
            self.arm();
        }
    }

    /// This will be true if the transaction commits.
    pub(crate) fn written(&self, xid: i64, news: News) {
        self.written_in(None, xid, news);
    }

    fn written_in(&self, database: Option<&str>, xid: i64, news: News) {
        if self.shared.state.pending().write(xid, database, news) {
            self.arm();
        }
    }

    fn arm(&self) {
        ensure(&self.shared.prober, || prober::run(Arc::clone(&self.shared.state)));
        self.shared.state.armed.notify_one();
    }

    fn listen(&self) {
        ensure(&self.shared.prober, || prober::run(Arc::clone(&self.shared.state)));
        ensure(&self.shared.listener, || listener::run(Arc::clone(&self.shared.state)));
    }
}

/// Runs the task, unless it runs already; the runtime that it ran on may be gone.
fn ensure<F: Future<Output = ()> + Send + 'static>(task: &Mutex<Option<JoinHandle<()>>>, run: impl FnOnce() -> F) {
    let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
    if task.as_ref().is_none_or(JoinHandle::is_finished) {
        *task = Some(tokio::spawn(run()));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.state.closed.cancel();
    }
}

impl State {
    fn pending(&self) -> MutexGuard<'_, pending::Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_options(&self) -> MutexGuard<'_, PgConnectOptions> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn options(&self) -> PgConnectOptions {
        self.lock_options().clone()
    }

    /// Tells those of this process.
    fn ring(&self, news: News) {
        if news.outbox {
            self.outbox.ring();
        }
        if news.sagas {
            self.sagas.ring();
        }
    }

    fn set_reliable(&self, reliable: bool) {
        self.outbox.set_reliable(reliable);
        self.sagas.set_reliable(reliable);
    }
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints").field("database", &self.shared.state.database.get()).finish_non_exhaustive()
    }
}
