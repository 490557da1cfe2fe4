//! JSON text as it is stored: validated once, then cheap to copy and never parsed without need.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;

/// The largest input or output, in bytes of JSON text: 1 MiB.
pub const MAX_JSON_BYTES: usize = 1 << 20;

/// The deepest nesting of arrays and objects in a stored JSON text.
pub const MAX_JSON_DEPTH: usize = 100;

/// A JSON text that the store can hold: at most [`MAX_JSON_BYTES`] long, at most
/// [`MAX_JSON_DEPTH`] deep, and without NUL characters, which PostgreSQL cannot store.
///
/// ```
/// use amends::Json;
/// let json = Json::encode(&vec![1, 2, 3])?;
/// assert_eq!(json.as_str(), "[1,2,3]");
/// assert_eq!(json.decode::<Vec<u8>>()?, [1, 2, 3]);
/// assert!(Json::encode("a\0b").is_err());
/// # Ok::<(), amends::JsonError>(())
/// ```
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

/// Why a value cannot be stored as JSON, or a stored text cannot be read back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The value has no JSON form, or the text is not of the expected type.
    #[error("{0}")]
    Serde(#[from] serde_json::Error),
    /// The text holds U+0000, which PostgreSQL cannot store.
    #[error("the JSON holds a NUL character (\\u0000), which PostgreSQL cannot store; remove it before it gets here")]
    Nul,
    /// The text is longer than [`MAX_JSON_BYTES`].
    #[error(
        "the JSON is {0} bytes long and the limit is {MAX_JSON_BYTES}; store the bulk elsewhere and pass a reference"
    )]
    TooLarge(usize),
    /// The list has more items than a step can run for.
    #[error("the list has {0} items and the limit is {max}; split the work into several sagas", max = crate::list::MAX_ITEMS)]
    TooMany(usize),
    /// The text is nested deeper than [`MAX_JSON_DEPTH`].
    #[error("the JSON is nested deeper than {MAX_JSON_DEPTH} levels")]
    TooDeep,
}

impl Json {
    /// Encodes a value and checks that the store can hold it.
    ///
    /// # Errors
    /// Returns a [`JsonError`] that says what about the value cannot be stored.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, JsonError> {
        let raw = serde_json::value::to_raw_value(value)?;
        check(raw.get())?;
        Ok(Self(raw.into()))
    }

    /// Takes a JSON text as it is, and checks that the store can hold it.
    ///
    /// # Errors
    /// Returns a [`JsonError`] if the text is not JSON or cannot be stored.
    pub fn from_text(text: String) -> Result<Self, JsonError> {
        check(&text)?;
        Ok(Self(RawValue::from_string(text)?.into()))
    }

    /// Reads the text as a value.
    ///
    /// # Errors
    /// Returns [`JsonError::Serde`] if the text is of another type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
        Ok(serde_json::from_str(self.as_str())?)
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The JSON `null`, the output of a step that returns `()`.
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned().into())
    }
}

fn check(text: &str) -> Result<(), JsonError> {
    if text.len() > MAX_JSON_BYTES { Err(JsonError::TooLarge(text.len())) } else { check_text(text) }
}

/// One pass over the bytes, however many; strings are skipped, so that a bracket in a text does not count.
pub(crate) fn check_text(text: &str) -> Result<(), JsonError> {
    let (mut depth, mut in_string) = (0_usize, false);
    let mut bytes = text.as_bytes().iter();
    while let Some(byte) = bytes.next() {
        match (in_string, byte) {
            (_, 0) => return Err(JsonError::Nul),
            // An escape in JSON stands only inside a string; `\u0000` is the escaped NUL.
            (true, b'\\') if bytes.next() == Some(&b'u') && bytes.as_slice().starts_with(b"0000") => {
                return Err(JsonError::Nul);
            }
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > MAX_JSON_DEPTH {
                    return Err(JsonError::TooDeep);
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl std::hash::Hash for Json {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Box::<RawValue>::deserialize(deserializer)?.into()))
    }
}

/// The longest error text that is kept, in bytes.
const MAX_TEXT_BYTES: usize = 8 * 1024;

/// Makes a text from outside safe to store: NULs become `␀`, and what is too long is cut.
///
/// Error messages are payload too; a NUL in one has looped a peer of ours for ever.
pub fn sanitize(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut kept = text[..end].replace('\0', "␀");
    if end < text.len() {
        kept.push_str(" … (cut)");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgres_cannot_hold_is_refused_before_it_gets_there() {
        assert!(matches!(Json::encode("a\0"), Err(JsonError::Nul)));
        assert!(matches!(Json::encode(&"x".repeat(MAX_JSON_BYTES)), Err(JsonError::TooLarge(_))));
        let deep = "[".repeat(101) + &"]".repeat(101);
        assert!(matches!(Json::from_text(deep), Err(JsonError::TooDeep)));
    }

    #[test]
    fn harmless_texts_that_look_dangerous_pass() {
        assert!(Json::encode(r"a\u0000").is_ok(), "an escaped backslash before u0000");
        assert!(Json::encode(&"[".repeat(500)).is_ok(), "brackets in a string");
        assert!(Json::encode("\"\\").is_ok());
    }

    #[test]
    fn an_error_text_loses_its_nuls_and_its_megabytes() {
        let text = sanitize(&("é\0".repeat(1 << 20)));
        assert!(!text.contains('\0') && text.len() < 20_000 && text.ends_with("(cut)"));
    }
}
