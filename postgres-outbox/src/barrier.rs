//! The barrier: an action and its compensation, received any number of times, in any order, take effect once each or not
//! at all.

use std::time::Duration;

use amends::Json;
use sqlx::{PgConnection, PgPool};

use crate::retention;

/// Stands in front of what a participant does for sagas, in its own database.
///
/// A saga may ask twice, ask for the undoing of what was never done (*null compensation*), and have a request arrive after
/// its undoing (*dangling action*). In the transaction of its effect, the participant asks the barrier first:
///
/// ```no_run
/// # use amends_postgres::Barrier;
/// # async fn example(pool: sqlx::PgPool, key: &str) -> Result<(), sqlx::Error> {
/// const BARRIER: Barrier = Barrier::new("payments");
///
/// let mut tx = pool.begin().await?;
/// if BARRIER.act(&mut tx, key).await?.is_first() {
///     // … take the money
/// }
/// tx.commit().await?;
///
/// let mut tx = pool.begin().await?;
/// if BARRIER.undo(&mut tx, key).await?.is_first() {
///     // … give it back
/// }
/// tx.commit().await?;
/// # Ok(())
/// # }
/// ```
///
/// The key is the idempotency key of the step, also where it is undone: `call.step_key()`. [`enter`](Self::enter) is `act` for
/// those who answer at once, as over HTTP; over AMQP there is `Incoming::through` in `amends-relay`. Participants have a
/// page of their own: [`docs/PARTICIPANTS.md`](https://github.com/amends-rs/amends/blob/main/docs/PARTICIPANTS.md).
///
/// # Guarantees
/// For one key the action is carried out once at most, its compensation once at most and only after it, and the action never
/// after its compensation was asked for; as long as the row is kept (see [`prune`](Self::prune)). Two that come at once wait
/// for each other's transaction. Checked by the model `core/tests/models/barrier.rs`; the names are those of
/// Seata's and DTM's barriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    participant: &'static str,
}

/// What to do about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// Carry it out, in this transaction.
    First,
    /// It was carried out before; this is what was answered then, if that was [recorded](Barrier::record).
    Again(Option<Json>),
    /// Its undoing was asked for before it came, or there is nothing to undo: do nothing.
    Nothing,
}

impl Passage {
    /// Whether it is to be carried out.
    pub fn is_first(&self) -> bool {
        *self == Self::First
    }
}

/// On a conflict the row that is there is locked to the end of the transaction, and written as it was: `do nothing` would
/// neither lock it nor return it.
const ACT: &str = "
    insert into amends.barrier as b (participant, key, state) values ($1, $2, 'done')
    on conflict (participant, key) do update set state = b.state
    returning xmax = 0, state, answer::text";

/// What is set is worked out from the row as it is under the lock, not as the statement's snapshot saw it.
const UNDO: &str = "
    insert into amends.barrier as b (participant, key, state) values ($1, $2, 'undone')
    on conflict (participant, key)
        do update set state = 'undone', undoing = b.state = 'done', since = clock_timestamp()
    returning undoing";

const OLD: &str = "
    delete from amends.barrier where (participant, key) in (
        select participant, key from amends.barrier
        where since < clock_timestamp() - $1::bigint * interval '1 millisecond'
        order by since limit $2 for update skip locked
    )";

impl Barrier {
    /// The barrier of this participant: keys of different ones do not meet.
    pub const fn new(participant: &'static str) -> Self {
        Self { participant }
    }

    /// Asks whether to carry an action out.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn act(&self, conn: &mut PgConnection, key: &str) -> Result<Passage, sqlx::Error> {
        crate::hook::before("barrier");
        let (is_new, state, answer): (bool, String, Option<String>) =
            sqlx::query_as(ACT).bind(self.participant).bind(key).fetch_one(conn).await?;
        Ok(match (is_new, &*state) {
            (true, _) => Passage::First,
            (false, "done" | "refused") => Passage::Again(answer.and_then(|text| Json::from_text(text).ok())),
            _ => Passage::Nothing,
        })
    }

    /// Asks whether to carry the compensation of an action out. If the action never came, it will not be carried out later.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn undo(&self, conn: &mut PgConnection, key: &str) -> Result<Passage, sqlx::Error> {
        crate::hook::before("barrier");
        let undoes = sqlx::query_scalar(UNDO).bind(self.participant).bind(key).fetch_one(conn).await?;
        Ok(if undoes { Passage::First } else { Passage::Nothing })
    }

    /// Records the answer to an action that was carried out, for those who ask again.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn record(&self, conn: &mut PgConnection, key: &str, answer: &Json) -> Result<(), sqlx::Error> {
        self.close(conn, key, "done", answer).await
    }

    /// Records that an action was refused, without any effect: there is nothing to undo.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn refuse(&self, conn: &mut PgConnection, key: &str, answer: &Json) -> Result<(), sqlx::Error> {
        self.close(conn, key, "refused", answer).await
    }

    async fn close(&self, conn: &mut PgConnection, key: &str, state: &str, answer: &Json) -> Result<(), sqlx::Error> {
        crate::hook::before("barrier");
        sqlx::query("update amends.barrier set state = $3, answer = $4::json where participant = $1 and key = $2")
            .bind(self.participant)
            .bind(key)
            .bind(state)
            .bind(answer.as_str())
            .execute(conn)
            .await
            .map(drop)
    }

    /// Forgets what is older than `age`, some rows at a time; how many there were.
    ///
    /// The age must exceed the longest time after which a request can still come: the retries of a saga, its time parked, and
    /// what a broker keeps. 30 days are a good choice.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn prune(pool: &PgPool, age: Duration) -> Result<u64, sqlx::Error> {
        retention::delete(pool, OLD, age).await
    }
}
