//! Messages: what a step or an application publishes through the outbox.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Encoding, EncodingError, Error, JsonError, MessageId, telemetry, trace};

/// A typed message, such as an event.
///
/// `#[derive(Message)]` implements it:
///
/// ```
/// use amends::Message;
/// # use serde::{Serialize, Deserialize};
/// #[derive(Serialize, Deserialize, Message)]
/// #[message(name = "stock.reserved", key = sku)]
/// struct StockReserved { sku: String, qty: u32 }
///
/// assert_eq!(StockReserved::NAME, "stock.reserved");
/// assert_eq!(StockReserved { sku: "mug".into(), qty: 1 }.key().as_deref(), Some("mug"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    note = "add `#[derive(amends::Message)]` with `#[message(name = \"…\")]`"
)]
pub trait Message: Sized + Send + Sync {
    /// The type of the message on the wire and its routing key, such as `order.placed`.
    const NAME: &'static str;

    /// It may leave only as [`Payloads::pack`](crate::Payloads::pack) makes it, such as encrypted:
    /// [`OutboxMessage::new`] refuses it. `#[message(packed)]` sets it.
    const PACKED: bool = false;

    /// The format of its payload; the derive's default is [`AsJson`](crate::AsJson).
    type Encoding: Encoding<Self>;

    /// Messages of one key are first delivered in the order of their commits; `None` promises no order.
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }
}

/// The largest payload of a row of the outbox, in bytes: 1 MiB.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// The longest topic, name, content type and name of a header, in bytes: AMQP has no room for more.
pub const MAX_NAME_BYTES: usize = 255;
/// The most that the headers and the key of a message take, in bytes: 64 KiB. All properties of a message must fit into one frame
/// of the broker, which is 128 KiB by default, with those that the relay adds.
pub const MAX_HEADERS_BYTES: usize = 64 << 10;

/// The header with the encodings of the payload, in the order in which they were applied; see [`Codec`](crate::Codec). The
/// relay also sets the property of AMQP.
pub const CONTENT_ENCODING_HEADER: &str = "content-encoding";

/// A message on its way to the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxMessage {
    /// Identifies the message; consumers recognise duplicates by it.
    pub id: MessageId,
    /// Routing key: the topic it is published under.
    pub topic: String,
    /// The type of the message (`CloudEvents` `type`).
    pub name: String,
    /// The ordering key.
    pub key: Option<String>,
    /// The MIME type of the payload.
    pub content_type: String,
    /// Further headers, such as `traceparent`.
    pub headers: BTreeMap<String, String>,
    /// The payload as it goes over the wire.
    pub payload: Vec<u8>,
}

impl OutboxMessage {
    /// Puts a typed message into its envelope, with a span in the current trace as its parent.
    ///
    /// # Errors
    /// [`Error::Json`] or [`Error::Encoding`] if the message has no form that can be stored; [`Error::TooLarge`] if it is
    /// too large for the outbox or for a broker; [`Error::NotPacked`] if it must be packed.
    pub fn new<M: Message>(message: &M) -> Result<Self, Error> {
        if M::PACKED {
            return Err(Error::NotPacked { name: M::NAME });
        }
        let message = Self::encoded(message)?;
        message.check()?;
        Ok(message)
    }

    /// As [`new`](Self::new), whatever its size.
    pub(crate) fn encoded<M: Message>(message: &M) -> Result<Self, Error> {
        let what = || format!("message `{}`", M::NAME);
        let payload = M::Encoding::encode(message).map_err(|error| match error {
            EncodingError::Json(source) => Error::Json { what: what(), source },
            source => Error::Encoding { what: what(), source },
        })?;
        let id = MessageId::new();
        let span = telemetry::create_span(M::NAME, id);
        Ok(Self {
            id,
            topic: M::NAME.to_owned(),
            name: M::NAME.to_owned(),
            key: message.key().map(Cow::into_owned),
            content_type: M::Encoding::CONTENT_TYPE.to_owned(),
            headers: trace::headers_of(&span),
            payload,
        })
    }

    /// Whether the outbox and every broker can hold it. `Outbox` and the steps of sagas ask before they write anything.
    ///
    /// # Errors
    /// [`Error::TooLarge`] names what is too large; [`Error::Json`] if a text holds a NUL, which PostgreSQL cannot store.
    pub fn check(&self) -> Result<(), Error> {
        let of = |part: &str| format!("the {part} of message `{}`", crate::sanitize(&self.name));
        let within = |part: &str, bytes: usize, limit: usize, advice: &'static str| {
            if bytes > limit { Err(Error::TooLarge { what: of(part), bytes, limit, advice }) } else { Ok(()) }
        };
        let payload = "store the bulk elsewhere and pass a reference, as `Payloads::pack` with a store does";
        let shorter = "shorten it; AMQP has no room for more";
        within("payload", self.payload.len(), MAX_PAYLOAD_BYTES, payload)?;
        within("topic", self.topic.len(), MAX_NAME_BYTES, shorter)?;
        within("name", self.name.len(), MAX_NAME_BYTES, shorter)?;
        within("content type", self.content_type.len(), MAX_NAME_BYTES, shorter)?;
        let encodings = self.headers.get(CONTENT_ENCODING_HEADER).map_or(0, String::len);
        within("content encoding", encodings, MAX_NAME_BYTES, shorter)?;
        for name in self.headers.keys() {
            within("headers: a name", name.len(), MAX_NAME_BYTES, shorter)?;
        }
        let advice = "move what does not route or trace the message into its payload";
        within("headers and the key", self.headers_bytes(), MAX_HEADERS_BYTES, advice)?;
        let texts = [
            ("topic", Some(&self.topic)),
            ("name", Some(&self.name)),
            ("content type", Some(&self.content_type)),
            ("key", self.key.as_ref()),
        ];
        let headers = self.headers.iter().flat_map(|(name, value)| [name, value]).map(|text| ("header", Some(text)));
        match texts.into_iter().chain(headers).find(|(_, text)| text.is_some_and(|text| text.contains('\0'))) {
            Some((part, _)) => Err(Error::Json { what: of(part), source: JsonError::Nul }),
            None => Ok(()),
        }
    }

    /// How much headers and key take, as the relay sends them: the key is the event's partition key, and the trace an attribute too.
    pub fn headers_bytes(&self) -> usize {
        /// The length of a name, the type and the length of a value.
        const FRAMING: usize = 6;
        let size = |(name, value): (&String, &String)| {
            let times = if ["traceparent", "tracestate"].contains(&name.as_str()) { 2 } else { 1 };
            times * (FRAMING + name.len() + value.len())
        };
        self.headers.iter().map(size).sum::<usize>() + self.key.as_ref().map_or(0, String::len)
    }
}
