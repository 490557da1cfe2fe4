//! How messages become bytes: as JSON, or in any other format.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::JsonError;

/// The format of messages of type `M`: [`AsJson`] unless the message names another.
///
/// A format of your own is a type without values; amends need not know it:
///
/// ```
/// use amends::{Encoding, EncodingError, Message, OutboxMessage};
///
/// /// One line of text a message.
/// struct AsText;
///
/// impl<M: ToString + std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>> Encoding<M> for AsText {
///     const CONTENT_TYPE: &'static str = "text/plain; charset=utf-8";
///
///     fn encode(message: &M) -> Result<Vec<u8>, EncodingError> {
///         Ok(message.to_string().into_bytes())
///     }
///
///     fn decode(payload: &[u8]) -> Result<M, EncodingError> {
///         let text = std::str::from_utf8(payload).map_err(EncodingError::other)?;
///         text.parse().map_err(EncodingError::other)
///     }
/// }
///
/// #[derive(Message)]
/// #[message(name = "meter.read", encoding = AsText)]
/// struct MeterRead(u64);
/// # impl std::fmt::Display for MeterRead {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
/// # }
/// # impl std::str::FromStr for MeterRead {
/// #     type Err = std::num::ParseIntError;
/// #     fn from_str(text: &str) -> Result<Self, Self::Err> { text.parse().map(MeterRead) }
/// # }
///
/// let message = OutboxMessage::new(&MeterRead(1234))?;
/// assert_eq!(message.payload, b"1234");
/// assert_eq!(message.content_type, "text/plain; charset=utf-8");
/// assert_eq!(AsText::decode(&message.payload).map(|MeterRead(kwh)| kwh).ok(), Some(1234));
/// # Ok::<(), amends::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{M}` cannot be sent in the format `{Self}`",
    note = "JSON, the default, needs `#[derive(Serialize, Deserialize)]`; `#[message(encoding = …)]` names another format"
)]
pub trait Encoding<M> {
    /// The MIME type of the payload.
    const CONTENT_TYPE: &'static str;

    /// The message as bytes.
    ///
    /// # Errors
    /// Returns an [`EncodingError`] if this value has no such form.
    fn encode(message: &M) -> Result<Vec<u8>, EncodingError>;

    /// The message in these bytes.
    ///
    /// # Errors
    /// Returns an [`EncodingError`] if there is none in them.
    fn decode(payload: &[u8]) -> Result<M, EncodingError>;

    /// Whether payloads of this MIME type are tried at all. Those of [`CONTENT_TYPE`](Self::CONTENT_TYPE), whatever its
    /// parameters: the bytes of another format may mean something else in this one.
    fn reads(content_type: &str) -> bool {
        essence(content_type).eq_ignore_ascii_case(essence(Self::CONTENT_TYPE))
    }
}

/// The MIME type without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// JSON, the format of messages that name no other. It tries to read payloads of every MIME type.
#[derive(Debug, Clone, Copy)]
pub enum AsJson {}

#[diagnostic::do_not_recommend]
impl<M: Serialize + DeserializeOwned> Encoding<M> for AsJson {
    const CONTENT_TYPE: &'static str = "application/json";

    fn encode(message: &M) -> Result<Vec<u8>, EncodingError> {
        let text = serde_json::to_string(message).map_err(JsonError::from)?;
        // Its size is that of a payload: a large one may be stored elsewhere.
        crate::json::check_text(&text)?;
        Ok(text.into_bytes())
    }

    fn decode(payload: &[u8]) -> Result<M, EncodingError> {
        Ok(serde_json::from_slice(payload).map_err(JsonError::from)?)
    }

    fn reads(_content_type: &str) -> bool {
        true
    }
}

/// Why a message has no bytes, or bytes hold no message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncodingError {
    /// JSON: the value has no such form, or the text is not of the expected type.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Another format.
    #[error("{0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl EncodingError {
    /// The error of a format of your own.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}
