//! A message as a handler receives it, and the answer to it.

use std::collections::BTreeMap;

use amends::{
    AsJson, CLAIM_CHECK_HEADER, CONTENT_ENCODING_HEADER, CORRELATION_HEADER, Encoding, EncodingError,
    IDEMPOTENCY_HEADER, JsonError, Message, OutboxMessage, Payloads, Rejection, sanitize,
};
use chrono::{DateTime, Utc};
use lapin::message::Delivery;
use lapin::types::ShortString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::HandlerError;
use crate::envelope::{self, CONTENT_TYPE_HEADER, KEY_HEADER, SEQ_HEADER};
use crate::replies::{OUTCOME_HEADER, REJECTED};

/// A message as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Incoming {
    /// Its id; copies of one message have the same.
    pub id: String,
    /// Its type, such as `stock.reserved`.
    pub name: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// Its place in the outbox it came from.
    pub seq: Option<i64>,
    /// The routing key under which it was published.
    pub routing_key: String,
    /// When it was sent: by its id (UUID version 7), else by its `CloudEvents` time, else by its timestamp.
    pub sent_at: Option<DateTime<Utc>>,
    /// The broker has delivered it before.
    pub redelivered: bool,
    /// What an answer to it must carry to find home; of an answer, what it answers.
    pub correlation: Option<String>,
    /// The routing key under which it wants to be answered; see [`reply`](Self::reply).
    pub reply_to: Option<String>,
    /// A request that is asked again comes as another message, with another id and the same key here: whoever answers it
    /// does the work once for a key, and answers every time.
    pub idempotency_key: Option<String>,
    /// Its headers that are texts or whole numbers, and its properties `content-type` and `content-encoding`.
    pub headers: BTreeMap<String, String>,
    /// What it says.
    pub payload: Vec<u8>,
    /// Its payload was encoded, or kept elsewhere, and may be a secret: nothing of it is in the errors of [`read`](Self::read).
    pub was_packed: bool,
}

impl Incoming {
    /// Reads it as a message of type `M`; `None` if it is of another type.
    ///
    /// # Errors
    /// [`HandlerError::Reject`] if it is of this type by name but cannot be read.
    pub fn read<M: Message>(&self) -> Result<Option<M>, HandlerError> {
        if self.name != M::NAME {
            return Ok(None);
        }
        let no = |reason: String| HandlerError::Reject(format!("message {} is no `{}`: {reason}", self.id, M::NAME));
        if Payloads::is_packed(&self.headers) {
            let named = [CONTENT_ENCODING_HEADER, CLAIM_CHECK_HEADER].map(|header| (header, self.headers.get(header)));
            let named =
                named.iter().find_map(|(header, value)| Some(format!("its header `{header}` is `{}`", (*value)?)));
            let advice = "give the consumer its payloads (`ConsumerBuilder::payloads`)";
            return Err(no(format!("{}; {advice}", named.unwrap_or_default())));
        }
        let content_type = self.headers.get(CONTENT_TYPE_HEADER).map_or("", String::as_str);
        if !content_type.is_empty() && !M::Encoding::reads(content_type) {
            let wanted = <M::Encoding as Encoding<M>>::CONTENT_TYPE;
            return Err(no(format!("its content type is `{content_type}` and this consumer reads `{wanted}`")));
        }
        M::Encoding::decode(&self.payload).map(Some).map_err(|error| match error {
            _ if !self.was_packed => no(error.to_string()),
            EncodingError::Json(JsonError::Serde(error)) => {
                no(format!("what was packed does not fit at line {} column {}", error.line(), error.column()))
            }
            _ => no("what was packed cannot be read as that".to_owned()),
        })
    }

    /// The answer *done*, with what the step of the saga that asked returns; `None` if nobody asked.
    ///
    /// It is published through the outbox in the handler's own transaction, so that the work and its answer commit together:
    ///
    /// ```
    /// # use amends::Message;
    /// # use amends_postgres::Outbox;
    /// # use amends_relay::{Handler, HandlerError, Incoming};
    /// # use serde::{Deserialize, Serialize};
    /// # use sqlx::PgConnection;
    /// #[derive(Serialize, Deserialize, Message)]
    /// #[message(name = "parcel.ship")]
    /// struct ShipParcel { order: i64, kilograms: u32 }
    ///
    /// #[derive(Serialize, Deserialize, Message)]
    /// #[message(name = "parcel.shipped")]
    /// struct ParcelShipped { tracking: String }
    ///
    /// struct Courier;
    ///
    /// #[async_trait::async_trait]
    /// impl Handler for Courier {
    ///     async fn handle(&self, tx: &mut PgConnection, message: &Incoming) -> Result<(), HandlerError> {
    ///         let Some(parcel) = message.read::<ShipParcel>()? else { return Ok(()) };
    ///         let reply = if parcel.kilograms > 30 {
    ///             message.reject("too_heavy", "a parcel weighs 30 kg at most")?
    ///         } else {
    ///             message.reply(&ParcelShipped { tracking: format!("DE-{}", parcel.order) })?
    ///         };
    ///         Outbox::publish_all(tx, reply.as_slice()).await?;
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`HandlerError::Reject`] if the answer has no JSON form that can be stored.
    pub fn reply<M: Message>(&self, answer: &M) -> Result<Option<OutboxMessage>, HandlerError> {
        let (Some(reply_to), Some(correlation)) = (&self.reply_to, &self.correlation) else { return Ok(None) };
        let mut message = OutboxMessage::new(answer)?;
        message.topic.clone_from(reply_to);
        // Answers to one request keep their order.
        message.key = Some(correlation.clone());
        message.headers.insert(CORRELATION_HEADER.to_owned(), correlation.clone());
        Ok(Some(message))
    }

    /// The answer *no*: it was not done, and will not be; `None` if nobody asked. See [`reply`](Self::reply).
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub fn reject(
        &self,
        code: impl Into<String>,
        message: impl AsRef<str>,
    ) -> Result<Option<OutboxMessage>, HandlerError> {
        let rejection = Rejection { message: sanitize(message.as_ref()), ..Rejection::new(code) };
        let reply = self.reply(&Refused(rejection))?;
        Ok(reply.map(|mut reply| {
            reply.headers.insert(OUTCOME_HEADER.to_owned(), REJECTED.to_owned());
            reply
        }))
    }

    pub(crate) fn of(delivery: &Delivery) -> Result<Self, String> {
        let properties = &delivery.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(|value| sanitize(value.as_str()));
        let headers = envelope::headers(properties);
        let header = |name: &str| headers.get(name).cloned();
        let id = text(properties.message_id()).ok_or("it has no message id, so nobody could tell its copies apart")?;
        Ok(Self {
            sent_at: sent_at(
                &id,
                header("cloudEvents_time").or_else(|| header("cloudEvents:time")),
                *properties.timestamp(),
            ),
            id,
            routing_key: sanitize(delivery.routing_key.as_str()),
            name: text(properties.kind()).unwrap_or_else(|| sanitize(delivery.routing_key.as_str())),
            key: header(KEY_HEADER),
            seq: header(SEQ_HEADER).and_then(|seq| seq.parse().ok()),
            redelivered: delivery.redelivered,
            correlation: header(CORRELATION_HEADER).or_else(|| text(properties.correlation_id())),
            reply_to: text(properties.reply_to()),
            idempotency_key: header(IDEMPOTENCY_HEADER),
            headers,
            payload: delivery.data.clone(),
            was_packed: false,
        })
    }
}

fn sent_at(id: &str, time: Option<String>, timestamp: Option<u64>) -> Option<DateTime<Utc>> {
    let by_id = || {
        let (seconds, nanos) =
            id.parse::<Uuid>().ok().filter(|id| id.get_version_num() == 7)?.get_timestamp()?.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    };
    let by_time = || Some(DateTime::parse_from_rfc3339(&time?).ok()?.to_utc());
    let by_timestamp = || DateTime::from_timestamp(i64::try_from(timestamp?).ok()?, 0);
    by_id().or_else(by_time).or_else(by_timestamp)
}

/// A rejection on the wire.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Refused(Rejection);

impl Message for Refused {
    const NAME: &'static str = "amends.rejected";
    type Encoding = AsJson;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_message_was_sent_is_told_by_its_id_else_its_time_else_its_timestamp() {
        let year = |id: &str, time: Option<&str>, timestamp| {
            sent_at(id, time.map(str::to_owned), timestamp).map(|at| at.format("%Y").to_string())
        };
        let v7 = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(year(v7, Some("1999-12-31T00:00:00Z"), Some(0)).as_deref(), Some("2023"));
        assert_eq!(year("17", Some("1999-12-31T00:00:00Z"), Some(0)).as_deref(), Some("1999"));
        assert_eq!(year("17", Some("yesterday"), Some(0)).as_deref(), Some("1970"));
        assert_eq!(year("17", None, Some(u64::MAX)), None);
    }

    fn asked() -> Incoming {
        let (correlation, reply_to) = (Some("saga/ship#1".to_owned()), Some("home".to_owned()));
        Incoming { correlation, reply_to, ..Incoming::default() }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Card {
        number: u64,
    }

    impl Message for Card {
        const NAME: &'static str = "card";
        type Encoding = AsJson;
    }

    fn card(payload: &str, headers: &[(&str, &str)]) -> Incoming {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Incoming { name: "card".into(), payload: payload.into(), headers, ..Incoming::default() }
    }

    #[test]
    fn nothing_of_what_was_packed_is_in_an_error() {
        let message = card(r#"{"number":"4111"}"#, &[]);
        assert!(message.read::<Card>().unwrap_err().to_string().contains("4111"), "it helps where it may be seen");
        let error = Incoming { was_packed: true, ..message }.read::<Card>().unwrap_err().to_string();
        assert!(!error.contains("4111") && error.contains("line 1 column 16"), "{error}");
    }

    #[test]
    fn a_character_set_is_no_encoding() {
        for none in ["utf-8", "UTF-8", "identity", ""] {
            let read = card(r#"{"number":1}"#, &[(CONTENT_ENCODING_HEADER, none)]).read::<Card>().unwrap();
            assert_eq!(read, Some(Card { number: 1 }), "{none}");
        }
        let error = card("x", &[(CONTENT_ENCODING_HEADER, "zstd")]).read::<Card>().unwrap_err().to_string();
        assert!(error.contains("`content-encoding` is `zstd`") && error.contains("payloads"), "{error}");
    }

    #[test]
    fn an_answer_finds_home_and_none_is_made_where_nobody_asked() {
        let reply = asked().reject("no", "never\0").unwrap().unwrap();
        assert_eq!((reply.topic.as_str(), reply.key.as_deref()), ("home", Some("saga/ship#1")));
        assert_eq!(reply.headers[CORRELATION_HEADER], "saga/ship#1");
        assert_eq!(reply.headers[OUTCOME_HEADER], REJECTED);
        assert_eq!(reply.payload, r#"{"code":"no","message":"never␀"}"#.as_bytes());
        assert!(Incoming { reply_to: None, ..asked() }.reject("no", "").unwrap().is_none());
        assert!(Incoming { correlation: None, ..asked() }.reject("no", "").unwrap().is_none());
    }
}
