//! The barrier for those who are asked by HTTP, or in any way that answers at once.

use amends::Json;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;

use crate::{Barrier, Passage};

/// What to do about a request that is answered with an `A`; see [`Barrier::enter`].
#[derive(Debug)]
#[must_use]
pub enum Entry<'k, A> {
    /// Carry it out, in this transaction, and close the turn with the answer.
    First(Turn<'k>),
    /// It was asked for before; this was the answer.
    Answered(A),
    /// Its undoing was asked for first: do nothing, and say so (`410 Gone`).
    Undone,
}

/// The one time that an action is carried out.
#[derive(Debug)]
#[must_use = "close it with the answer, or whoever asks again gets none"]
pub struct Turn<'k> {
    barrier: Barrier,
    key: &'k str,
}

impl Barrier {
    /// Asks whether to carry an action out; whoever asks again gets the answer that was given first.
    ///
    /// ```no_run
    /// use amends_postgres::{Barrier, Entry};
    /// use serde::{Deserialize, Serialize};
    ///
    /// const BARRIER: Barrier = Barrier::new("payments");
    ///
    /// #[derive(Serialize, Deserialize)]
    /// enum Verdict { Charged { cents: i64 }, Refused { code: String } }
    ///
    /// /// `None` if the charge was undone before it came.
    /// async fn charge(pool: &sqlx::PgPool, key: &str, account: &str, cents: i64) -> sqlx::Result<Option<Verdict>> {
    ///     let mut tx = pool.begin().await?;
    ///     let verdict = match BARRIER.enter(&mut tx, key).await? {
    ///         Entry::Answered(verdict) => Some(verdict),
    ///         Entry::Undone => None,
    ///         Entry::First(turn) => {
    ///             let paid = sqlx::query("update account set cents = cents - $2 where id = $1 and cents >= $2")
    ///                 .bind(account)
    ///                 .bind(cents)
    ///                 .execute(&mut *tx)
    ///                 .await?;
    ///             Some(if paid.rows_affected() == 1 {
    ///                 turn.done(&mut tx, Verdict::Charged { cents }).await?
    ///             } else {
    ///                 turn.refused(&mut tx, Verdict::Refused { code: "insufficient_funds".into() }).await?
    ///             })
    ///         }
    ///     };
    ///     tx.commit().await?;
    ///     Ok(verdict)
    /// }
    /// ```
    ///
    /// # Errors
    /// Returns the database's error; [`sqlx::Error::Decode`] if the answer that was given is no `A` any more.
    pub async fn enter<'k, A: DeserializeOwned>(
        &self,
        conn: &mut PgConnection,
        key: &'k str,
    ) -> Result<Entry<'k, A>, sqlx::Error> {
        Ok(match self.act(conn, key).await? {
            Passage::First => Entry::First(Turn { barrier: *self, key }),
            Passage::Nothing => Entry::Undone,
            // Nothing was recorded: there is an answer only if nothing is one.
            Passage::Again(answer) => {
                let answer = answer.unwrap_or_else(Json::null).decode();
                Entry::Answered(answer.map_err(|error| sqlx::Error::Decode(Box::new(error)))?)
            }
        })
    }
}

impl Turn<'_> {
    /// It was carried out. Hands the answer back.
    ///
    /// # Errors
    /// Returns the database's error; [`sqlx::Error::Encode`] if the answer cannot be kept as JSON.
    pub async fn done<A: Serialize>(self, conn: &mut PgConnection, answer: A) -> Result<A, sqlx::Error> {
        self.barrier.record(conn, self.key, &kept(&answer)?).await?;
        Ok(answer)
    }

    /// It was not, and will not be: there is nothing to undo. Hands the answer back.
    ///
    /// # Errors
    /// As [`done`](Self::done).
    pub async fn refused<A: Serialize>(self, conn: &mut PgConnection, answer: A) -> Result<A, sqlx::Error> {
        self.barrier.refuse(conn, self.key, &kept(&answer)?).await?;
        Ok(answer)
    }
}

fn kept<A: Serialize>(answer: &A) -> Result<Json, sqlx::Error> {
    Json::encode(answer).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}
