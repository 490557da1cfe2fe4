//! Messages: what a step or an application publishes through the outbox.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, Json, MessageId};

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
pub trait Message: Serialize + DeserializeOwned + Send + Sync {
    /// The type of the message on the wire and its routing key, such as `order.placed`.
    const NAME: &'static str;

    /// Messages of one key are first delivered in the order of their commits; `None` promises no order.
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }
}

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
    /// Puts a typed message into its envelope, with JSON as the content and the current trace as its parent.
    ///
    /// # Errors
    /// Returns [`Error::Json`] if the message has no storable JSON form.
    pub fn new<M: Message>(message: &M) -> Result<Self, Error> {
        let json =
            Json::encode(message).map_err(|source| Error::Json { what: format!("message `{}`", M::NAME), source })?;
        let key = message.key().map(Cow::into_owned);
        if key.as_deref().is_some_and(|key| key.contains('\0')) {
            return Err(Error::Json {
                what: format!("the key of message `{}`", M::NAME),
                source: crate::JsonError::Nul,
            });
        }
        Ok(Self {
            id: MessageId::new(),
            topic: M::NAME.to_owned(),
            name: M::NAME.to_owned(),
            key,
            content_type: "application/json".to_owned(),
            headers: crate::trace::current_headers(),
            payload: json.as_str().as_bytes().to_vec(),
        })
    }
}
