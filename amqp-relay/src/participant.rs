//! Answers the requests of sagas, each once, whatever order they come in.

use amends::{Correlation, Json, Message};
use amends_postgres::{Barrier, Outbox, Passage};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::replies::{OUTCOME_HEADER, REJECTED};
use crate::{HandlerError, Incoming};

/// A request that is to be carried out now; see [`Incoming::through`].
#[derive(Debug)]
#[must_use]
pub struct Work<'a> {
    request: &'a Incoming,
    barrier: Barrier,
    key: String,
    undo: bool,
}

/// An answer as it is kept, for whoever asks again.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    rejected: bool,
    answer: Json,
}

/// Nothing more is said of what was undone.
#[derive(Serialize, Deserialize)]
struct Undone;

impl Message for Undone {
    const NAME: &'static str = "amends.undone";
    type Encoding = amends::AsJson;
}

impl Incoming {
    /// Whether a saga's request, or the undoing of one, is to be carried out; `None` if there is nothing to do: it was done
    /// before, and is answered as it was then; or its undoing was asked for first; or there is nothing to undo, and that is
    /// answered.
    ///
    /// One line makes a participant safe, whatever comes twice, late or in the wrong order:
    ///
    /// ```
    /// # use amends::Message;
    /// # use amends_postgres::Barrier;
    /// # use amends_relay::{Handler, HandlerError, Incoming};
    /// # use serde::{Deserialize, Serialize};
    /// # use sqlx::PgConnection;
    /// # #[derive(Serialize, Deserialize, Message)]
    /// # #[message(name = "seat.reserve")]
    /// # struct ReserveSeat { flight: String }
    /// # #[derive(Serialize, Deserialize, Message)]
    /// # #[message(name = "seat.reserved")]
    /// # struct SeatReserved { number: i32 }
    /// # struct Airline;
    /// #[async_trait::async_trait]
    /// impl Handler for Airline {
    ///     async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
    ///         let Some(work) = message.through(Barrier::new("airline"), tx).await? else { return Ok(()) };
    ///         if work.is_undo() {
    ///             sqlx::query("delete from seat where booking = $1").bind(work.key()).execute(&mut *tx).await?;
    ///             return work.undone(tx).await;
    ///         }
    ///         let Some(ask) = message.read::<ReserveSeat>()? else { return work.reject(tx, "unknown", "").await };
    ///         let seat = sqlx::query_scalar("insert into seat (booking, flight) values ($1, $2) returning number")
    ///             .bind(work.key())
    ///             .bind(&ask.flight)
    ///             .fetch_one(&mut *tx)
    ///             .await?;
    ///         work.reply(tx, &SeatReserved { number: seat }).await
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`HandlerError::Reject`] if it is no request of a saga; [`HandlerError::Retry`] if the database fails.
    pub async fn through(&self, barrier: Barrier, tx: &mut PgConnection) -> Result<Option<Work<'_>>, HandlerError> {
        let nobody = || HandlerError::Reject(format!("message {} is no request of a saga", self.id));
        let correlation = self.correlation.as_deref().and_then(|text| text.parse::<Correlation>().ok());
        let (Some(correlation), Some(key)) = (correlation, &self.idempotency_key) else { return Err(nobody()) };
        let undo = correlation.undo;
        // The key of the step, which its undoing names too.
        let key = if undo { key.strip_suffix("/undo").unwrap_or(key) } else { key }.to_owned();
        let passage = if undo { barrier.undo(tx, &key).await? } else { barrier.act(tx, &key).await? };
        let work = Work { request: self, barrier, key, undo };
        match passage {
            Passage::First => return Ok(Some(work)),
            Passage::Again(Some(kept)) => {
                let kept: Kept = kept.decode().map_err(|error| HandlerError::Retry(Box::new(error)))?;
                work.send(tx, &kept).await?;
            }
            Passage::Nothing if undo => work.undone(tx).await?,
            Passage::Nothing => {}
            Passage::Again(None) => tracing::warn!(
                message = self.id,
                key = work.key,
                "a saga asks again for what was carried out without an answer; end each way through the handler with one"
            ),
        }
        Ok(None)
    }
}

impl Work<'_> {
    /// The idempotency key of the step: the same in every attempt, and where it is undone.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// It is to be undone.
    pub fn is_undo(&self) -> bool {
        self.undo
    }

    /// Answers *done*, with what the step of the saga returns: always as JSON, which is what sagas keep.
    ///
    /// # Errors
    /// [`HandlerError::Reject`] if the answer cannot be stored; [`HandlerError::Retry`] if the database fails.
    pub async fn reply<M: Message + Serialize>(self, tx: &mut PgConnection, answer: &M) -> Result<(), HandlerError> {
        self.answer(tx, M::NAME, answer, false).await
    }

    /// Answers *no*: it was not done, and will not be.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub async fn reject(self, tx: &mut PgConnection, code: &str, message: &str) -> Result<(), HandlerError> {
        let rejection = amends::Rejection { message: amends::sanitize(message), ..amends::Rejection::new(code) };
        self.answer(tx, "amends.rejected", &rejection, true).await
    }

    /// Answers that it was undone.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub async fn undone(self, tx: &mut PgConnection) -> Result<(), HandlerError> {
        let kept = Kept { name: Undone::NAME.to_owned(), rejected: false, answer: Json::null() };
        self.send(tx, &kept).await
    }

    async fn answer<T: Serialize>(
        self,
        tx: &mut PgConnection,
        name: &str,
        answer: &T,
        rejected: bool,
    ) -> Result<(), HandlerError> {
        let unstorable =
            |error: amends::JsonError| HandlerError::Reject(format!("the answer cannot be stored: {error}"));
        let kept = Kept { name: name.to_owned(), rejected, answer: Json::encode(answer).map_err(unstorable)? };
        if !self.undo {
            let kept = Json::encode(&kept).map_err(unstorable)?;
            if rejected {
                self.barrier.refuse(tx, &self.key, &kept).await?;
            } else {
                self.barrier.record(tx, &self.key, &kept).await?;
            }
        }
        self.send(tx, &kept).await
    }

    async fn send(&self, tx: &mut PgConnection, kept: &Kept) -> Result<(), HandlerError> {
        // Nobody may have asked for an answer.
        let Some(mut reply) = self.request.reply(&Undone)? else { return Ok(()) };
        reply.name.clone_from(&kept.name);
        reply.payload = kept.answer.as_str().as_bytes().to_vec();
        if kept.rejected {
            reply.headers.insert(OUTCOME_HEADER.to_owned(), REJECTED.to_owned());
        }
        Outbox::publish_all(tx, std::slice::from_ref(&reply)).await?;
        Ok(())
    }
}
