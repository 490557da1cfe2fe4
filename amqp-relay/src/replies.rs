//! Replies come home: they are taken from the relay's own queue and written to the journals of the sagas that asked.

use std::fmt::Display;

use amends::{Answer, Correlation, CorrelationError, Json};
use amends_postgres::{Delivered, deliver_reply};
use async_trait::async_trait;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{Broker, Consumer, Handler, HandlerError, Incoming, Order, QueueKind, QueueTopology, telemetry};

/// The header that makes a reply a rejection, if it says `rejected`; its payload is then `{"code": "…", "message": "…"}`.
///
/// Without the header a reply says *done*, and its payload is the output of the step.
pub const OUTCOME_HEADER: &str = "amends-outcome";

pub(crate) const REJECTED: &str = "rejected";
const DONE: &str = "done";

/// Where the replies to the requests of sagas arrive.
///
/// Services that share a broker, each with a database of its own, need a queue each: what one cannot find in its
/// database is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyQueue {
    /// The name of the queue, which is also its routing key on the relay's exchange: a participant may answer there or on
    /// the default exchange. What cannot be delivered is kept in `<name>.dead`, behind an exchange of that name.
    /// `amends.replies`.
    pub name: String,
    /// Classic or quorum. Classic.
    pub kind: QueueKind,
    /// Declare the queue at every connection. Yes.
    pub declare: bool,
    /// How many replies are delivered at once, each with a connection of the pool. 4: a reply waits while a step of
    /// its saga commits, and those to other sagas pass it.
    pub concurrency: usize,
}

impl Default for ReplyQueue {
    fn default() -> Self {
        Self { name: "amends.replies".into(), kind: QueueKind::default(), declare: true, concurrency: 4 }
    }
}

impl ReplyQueue {
    /// The queue, with its bindings to the exchange that is published to and its dead letters.
    pub fn topology(&self, exchange: &str) -> QueueTopology {
        QueueTopology {
            kind: self.kind,
            dead_letter_exchange: Some(format!("{}.dead", self.name)),
            ..QueueTopology::new(&self.name, exchange, [&self.name])
        }
    }

    pub(crate) fn consumer(&self, pool: PgPool, url: Broker, exchange: &str) -> Consumer {
        Consumer::builder(pool, url)
            .declare(self.declare)
            .order(Order::Key)
            .concurrency(self.concurrency.max(1))
            // Without its reply a saga would wait in vain.
            .attempts(u32::MAX)
            .for_all(self.name.clone(), self.topology(exchange), Home)
    }
}

/// Delivers replies.
#[derive(Debug)]
pub(crate) struct Home;

#[async_trait]
impl Handler for Home {
    async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
        let handled = deliver(tx, message).await;
        let result = match &handled {
            Ok(Delivered::Appended) => "appended",
            Ok(Delivered::Ended) => "ended",
            Ok(Delivered::Unknown) => "unknown",
            Err(HandlerError::Reject(_)) => "malformed",
            Err(HandlerError::Retry(_) | HandlerError::Unavailable(_)) => "retried",
        };
        metrics::counter!(telemetry::REPLIES, "result" => result).increment(1);
        let correlation = message.correlation.as_deref().unwrap_or_default();
        match handled? {
            Delivered::Appended => Ok(()),
            Delivered::Ended => {
                tracing::info!(
                    correlation,
                    reply = message.id,
                    "a reply came after its saga had ended; it changes nothing"
                );
                Ok(())
            }
            Delivered::Unknown => Err(reject(format_args!("there is no saga for the reply to {correlation}"))),
        }
    }
}

async fn deliver(tx: &mut PgConnection, message: &Incoming) -> Result<Delivered, HandlerError> {
    let text = message.correlation.as_deref();
    let text = text.ok_or_else(|| reject("the reply has no correlation, so nobody knows what it answers"))?;
    let Correlation { saga, step, undo, attempt } = text.parse().map_err(|error: CorrelationError| reject(error))?;
    let answer = answer(message).map_err(|reason| reject(format_args!("the reply to {text}: {reason}")))?;
    let delivered = deliver_reply(tx, saga, &step, undo, attempt, &answer, event_id(&message.id)).await;
    delivered.map_err(|error| match &error {
        // Class 22: it is the reply that the database cannot take, however often it is tried.
        sqlx::Error::Database(refused) if refused.code().is_some_and(|code| code.starts_with("22")) => {
            reject(format_args!("the reply to {text} cannot be stored: {refused}"))
        }
        _ => error.into(),
    })
}

fn reject(reason: impl Display) -> HandlerError {
    HandlerError::Reject(reason.to_string())
}

/// The answer, or why it is none.
fn answer(message: &Incoming) -> Result<Answer, String> {
    let text = String::from_utf8(message.payload.clone()).map_err(|_| "it is no UTF-8")?;
    let payload = Json::from_text(text).map_err(|error| format!("it is no JSON that can be stored: {error}"))?;
    match message.headers.get(OUTCOME_HEADER).map(String::as_str) {
        None | Some(DONE) => Ok(Answer::Done(payload)),
        Some(REJECTED) => payload
            .decode()
            .map(Answer::Rejected)
            .map_err(|error| format!(r#"a rejection is {{"code": "…", "message": "…"}}: {error}"#)),
        Some(other) => Err(format!("its header `{OUTCOME_HEADER}` is `{other}`; it may be `{DONE}` or `{REJECTED}`")),
    }
}

/// Ids of participants that are no UUIDs become UUIDs of their own kind.
fn event_id(message_id: &str) -> Uuid {
    const FOREIGN: Uuid = Uuid::from_u128(0x616d_656e_6473_4000_8000_7265_706c_7931);
    message_id.parse().unwrap_or_else(|_| Uuid::new_v5(&FOREIGN, message_id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use amends::Rejection;

    use super::*;

    fn reply(outcome: Option<&str>, payload: &[u8]) -> Incoming {
        let headers = outcome.map(|outcome| (OUTCOME_HEADER.to_owned(), outcome.to_owned()));
        Incoming { headers: headers.into_iter().collect(), payload: payload.to_vec(), ..Incoming::default() }
    }

    #[test]
    fn a_reply_says_done_unless_its_header_says_otherwise() {
        let done = Answer::Done(Json::encode(&17).unwrap());
        assert_eq!(answer(&reply(None, b"17")), Ok(done.clone()));
        assert_eq!(answer(&reply(Some("done"), b"17")), Ok(done));
        let rejected = Answer::Rejected(Rejection::new("no"));
        assert_eq!(answer(&reply(Some("rejected"), br#"{"code":"no"}"#)), Ok(rejected));
    }

    #[test]
    fn what_cannot_be_an_answer_is_refused_with_the_reason() {
        let deep = [vec![b'['; 101], vec![b']'; 101]].concat();
        let large = [b"\"", &*vec![b'x'; 1 << 20], b"\""].concat();
        let cases: [(Option<&str>, &[u8], &str); 8] = [
            (None, b"", "JSON"),
            (None, b"{", "JSON"),
            (None, b"\xff", "UTF-8"),
            (None, b"\"\\u0000\"", "NUL"),
            (None, &deep, "deeper"),
            (None, &large, "limit"),
            (Some("rejected"), b"17", "code"),
            (Some("perhaps"), b"17", "perhaps"),
        ];
        for (outcome, payload, reason) in cases {
            let refused = answer(&reply(outcome, payload)).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn ids_that_are_no_uuids_differ_and_last() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(event_id(id).to_string(), id);
        assert_eq!(event_id("a"), event_id("a"));
        assert_ne!(event_id("a"), event_id("b"));
    }
}
