//! The snapshot cursor: reads the outbox in commit order per key, loses nothing, and is stalled by nobody.

mod held;
mod layout;
mod lease;
mod position;
mod progress;
mod read;
mod replay;

use std::collections::HashSet;
use std::time::Duration;

use amends::OutboxMessage;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use thiserror::Error;
use uuid::Uuid;

pub use held::{Due, Held, Unpublished};
pub use layout::{LaneView, Layout, Relays};
pub use position::{Pass, Position, Read, Snapshot};
pub use progress::Progress;
pub use replay::Retold;

use crate::error::took_too_long;

/// One lane of the outbox, held under a lease by this process. Reads ahead of what it has settled.
///
/// It has a connection of its own, and all that it remembers is void with it: after any error, drop it and acquire the
/// lane again.
#[derive(Debug)]
pub struct Lane {
    conn: PgConnection,
    number: i16,
    owner: Uuid,
    epoch: i64,
    lease: Duration,
    progress: Progress,
    /// How many lanes share the keys.
    lanes: i16,
    /// The number of lanes is being changed: so far this one reads.
    meeting: Option<Snapshot>,
    has_arrived: bool,
    held_keys: HashSet<String>,
    /// Messages without a key may be held too.
    has_held: bool,
}

/// A page of messages in order, and the position once they are settled.
#[derive(Debug)]
pub struct Page {
    /// The messages, by seq.
    pub messages: Vec<Sequenced>,
    /// There may be more behind it.
    pub full: bool,
    /// `None` if the cursor need not move.
    after: Option<Position>,
}

impl Page {
    /// A page of these messages, which moves no cursor.
    pub fn of(messages: Vec<Sequenced>) -> Self {
        Self { messages, full: false, after: None }
    }
}

/// A message as it stands in the outbox.
#[derive(Debug, Clone)]
pub struct Sequenced {
    /// Its place.
    pub seq: i64,
    /// When it was written.
    pub created_at: DateTime<Utc>,
    /// The message.
    pub message: OutboxMessage,
}

/// Why a lane cannot be read on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaneError {
    /// Another relay has taken the lane over; what this one publishes now may be published again.
    #[error("another relay has taken over this lane")]
    Lost,
    /// The database has said nothing for longer than it lets a statement run: its host is gone, or what lies between.
    #[error("the database has not answered within {0:?}; connecting anew")]
    Silent(Duration),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Lane {
    /// Takes the lane if nobody holds it, or its holder's lease has run out.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn acquire(
        pool: &PgPool,
        lane: i16,
        owner: Uuid,
        name: &str,
        lease: Duration,
    ) -> Result<Option<Self>, LaneError> {
        let mut conn = within(LEASES_TO_ANSWER * lease, connect(pool, lease)).await?;
        let patience = LEASES_TO_ANSWER * lease;
        let Some(mut found) = within(patience, lease::take(&mut conn, lane, owner, name, lease)).await? else {
            return Ok(None);
        };
        if let Some(system) = found.restored_into {
            tracing::warn!(
                lane,
                "the database was restored into another cluster; publishing everything retained again"
            );
            lease::restart(&mut conn, lane, system).await?;
            (found.position, found.meeting) = (Position::start(), None);
        }
        let epoch = found.epoch;
        let mut taken = Self {
            conn,
            number: lane,
            owner,
            epoch,
            lease,
            progress: Progress::at(found.position).taken_at(found.value),
            lanes: found.lanes,
            meeting: found.meeting,
            has_arrived: false,
            held_keys: HashSet::new(),
            has_held: false,
        };
        (taken.held_keys, taken.has_held) = within(taken.patience(), held::keys(&mut taken.conn, lane)).await?;
        tracing::info!(lane, epoch, held = taken.has_held, "this relay reads the lane now");
        Ok(Some(taken))
    }

    /// How long the database may take to answer.
    fn patience(&self) -> Duration {
        LEASES_TO_ANSWER * self.lease
    }

    /// Grows with every change of owner.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The number of lanes is being changed, and everything that this one publishes before was read; settle it and give the lane
    /// back.
    pub fn has_arrived(&self) -> bool {
        self.has_arrived
    }

    /// Messages are held; some of them may be due.
    pub fn has_held(&self) -> bool {
        self.has_held
    }

    /// Messages of this key wait for an earlier one that the broker would not take.
    pub fn is_held(&self, key: &str) -> bool {
        self.held_keys.contains(key)
    }

    /// Reads the next page, behind those that were read and not settled yet: so many messages at most, and fewer if they are large.
    ///
    /// # Errors
    /// Returns the database's error, or [`LaneError::Silent`], as all of these.
    pub async fn read(&mut self, limit: usize) -> Result<Page, LaneError> {
        self.has_arrived = self.meeting.as_ref().is_some_and(|meeting| self.progress.head_for(meeting));
        if self.has_arrived {
            return Ok(Page { messages: Vec::new(), full: false, after: None });
        }
        let lane = (self.number, self.lanes);
        let page = within(self.patience(), read::page(&mut self.conn, lane, self.progress.position(), limit));
        let (messages, read, value) = page.await?;
        let after = self.progress.read(&read, value);
        Ok(Page { messages, full: read.full, after })
    }

    /// Moves the persisted cursor past a page. Messages of it that are not published go to the held ones in the same
    /// transaction. Pages are settled in the order in which they were read.
    ///
    /// # Errors
    /// [`LaneError::Lost`] if another relay has the lane; then nothing was changed.
    pub async fn settle(&mut self, page: &Page, unpublished: &[Unpublished<'_>]) -> Result<(), LaneError> {
        let Some(after) = &page.after else { return Ok(()) };
        let (lane, owner, epoch, lease) = (self.number, self.owner, self.epoch, self.lease);
        within(self.patience(), lease::move_to(&mut self.conn, lane, owner, epoch, lease, after, unpublished)).await?;
        self.progress.moved();
        self.has_held |= !unpublished.is_empty();
        self.held_keys.extend(unpublished.iter().filter_map(|held| held.message.message.key.clone()));
        Ok(())
    }

    /// Keeps the lease while there is nothing to settle.
    ///
    /// # Errors
    /// [`LaneError::Lost`] if another relay has the lane.
    pub async fn renew(&mut self) -> Result<(), LaneError> {
        within(self.patience(), lease::renew(&mut self.conn, self.number, self.owner, self.epoch, self.lease)).await
    }

    /// Gives the lane back, so that a standby need not wait for the lease to run out.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn release(mut self) -> Result<(), LaneError> {
        // Later than that it is free anyway.
        within(self.lease, async {
            lease::release(&mut self.conn, self.number, self.owner, self.epoch).await?;
            self.conn.close().await
        })
        .await
    }

    /// Held messages that are due: those without a key, and those of the keys of which the first is due.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn due_held(&mut self, limit: usize) -> Result<Due, LaneError> {
        let due = match within(self.patience(), held::due(&mut self.conn, self.number, limit)).await {
            Err(LaneError::Database(error)) if took_too_long(&error) => {
                tracing::warn!(lane = self.number, %error, "too many held messages to look for those that are due; others flow on");
                return Ok(Due { messages: Vec::new(), next: Some(Duration::from_mins(1)) });
            }
            due => due?,
        };
        if due.messages.is_empty() && due.next.is_none() {
            // An operator may have discarded them all.
            self.free_held(HashSet::new()).await?;
        }
        Ok(due)
    }

    /// Those of these keys of which nothing is held any more are free.
    async fn free_held(&mut self, keys: HashSet<&str>) -> Result<(), LaneError> {
        let keys: Vec<&str> = keys.into_iter().collect();
        let (still, any) = within(self.patience(), held::still(&mut self.conn, self.number, &keys)).await?;
        self.has_held = any;
        if !any {
            self.held_keys.clear();
        }
        for key in keys.into_iter().filter(|key| !still.contains(*key)) {
            self.held_keys.remove(key);
        }
        Ok(())
    }

    /// Removes held messages that are published now; a key whose last one it was returns to the fast path.
    ///
    /// # Errors
    /// [`LaneError::Lost`] if another relay has the lane; then nothing was changed.
    pub async fn settle_held(&mut self, published: &[&Sequenced]) -> Result<(), LaneError> {
        let seqs: Vec<i64> = published.iter().map(|message| message.seq).collect();
        within(self.patience(), held::remove(&mut self.conn, self.number, self.epoch, &seqs)).await?;
        let keys: HashSet<&str> = published.iter().filter_map(|held| held.message.key.as_deref()).collect();
        self.free_held(keys).await
    }

    /// Records that the broker refused held messages again: they are retried with growing pauses, then parked.
    ///
    /// # Errors
    /// [`LaneError::Lost`] if another relay has the lane; then nothing was changed.
    pub async fn refused_held(&mut self, refused: &[(i64, &str)], most_attempts: i32) -> Result<(), LaneError> {
        within(self.patience(), held::refused(&mut self.conn, self.number, self.epoch, refused, most_attempts)).await
    }

    /// Held messages are tried again after so long: their exchange takes nothing, which says nothing about them.
    ///
    /// # Errors
    /// [`LaneError::Lost`] if another relay has the lane; then nothing was changed.
    pub async fn postpone_held(&mut self, postponed: &[(i64, &str)], pause: Duration) -> Result<(), LaneError> {
        within(self.patience(), held::postpone(&mut self.conn, self.number, self.epoch, postponed, pause)).await
    }
}

/// The server ends a statement after so many leases.
const LEASES_A_STATEMENT: u32 = 6;
/// A server that has not even said so by then is gone.
const LEASES_TO_ANSWER: u32 = LEASES_A_STATEMENT + 1;

/// Waits for the database, but not for the hours after which TCP would give it up. Only for statements that commit by themselves, on
/// a connection that is dropped after any error.
async fn within<T, E>(limit: Duration, statement: impl Future<Output = Result<T, E>>) -> Result<T, LaneError>
where
    LaneError: From<E>,
{
    match tokio::time::timeout(limit, statement).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(LaneError::Silent(limit)),
    }
}

/// A session that dies by itself if its relay is stopped in the middle of a transaction.
async fn connect(pool: &PgPool, lease: Duration) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = pool.connect_options().as_ref().clone();
    let mut conn = PgConnection::connect_with(&options.application_name("amends-relay")).await?;
    let longest = (lease * LEASES_A_STATEMENT).as_millis();
    // Compiling the reading statement (JIT) took 45 ms of the 57 ms of a page. A plan that was made while the outbox was empty is
    // none for a backlog.
    let settings = format!(
        "set idle_in_transaction_session_timeout = '10s'; set lock_timeout = '5s'; set statement_timeout = {longest}; set jit = off; set plan_cache_mode = force_custom_plan"
    );
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut conn).await?;
    Ok(conn)
}
