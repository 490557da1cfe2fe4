//! Messages on the wire: `CloudEvents` 1.0 in binary mode over AMQP, with W3C trace context in the headers.

use amends::sanitize;
use amends_postgres::cursor::Sequenced;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use crate::RelayError;
use crate::broker::short;

/// The header with the ordering key.
pub const KEY_HEADER: &str = "amends-key";
/// The header with the message's place in the outbox: messages of one key have growing numbers.
pub const SEQ_HEADER: &str = "amends-seq";

/// Persistent, always.
const PERSISTENT: u8 = 2;

pub(crate) fn properties(sequenced: &Sequenced, source: &str) -> Result<BasicProperties, RelayError> {
    let message = &sequenced.message;
    let id = message.id.to_string();
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(short("header", name)?, text(value));
    }
    headers.insert("cloudEvents:specversion".into(), text("1.0"));
    headers.insert("cloudEvents:id".into(), text(&id));
    headers.insert("cloudEvents:type".into(), text(&message.name));
    headers.insert("cloudEvents:source".into(), text(source));
    headers.insert("cloudEvents:time".into(), text(&sequenced.created_at.to_rfc3339()));
    headers.insert(SEQ_HEADER.into(), AMQPValue::LongLongInt(sequenced.seq));
    if let Some(key) = &message.key {
        headers.insert(KEY_HEADER.into(), text(key));
    }
    Ok(BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short("message id", &id)?)
        .with_content_type(short("content type", &message.content_type)?)
        .with_type(short("message type", &message.name)?)
        .with_timestamp(u64::try_from(sequenced.created_at.timestamp()).unwrap_or_default())
        .with_headers(headers))
}

pub(crate) fn routing_key(sequenced: &Sequenced) -> Result<ShortString, RelayError> {
    short("routing key", &sequenced.message.topic)
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// A header of a message that was received, as text.
pub(crate) fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(value) => Some(sanitize(&String::from_utf8_lossy(value.as_bytes()))),
        AMQPValue::ShortString(value) => Some(sanitize(value.as_str())),
        AMQPValue::LongLongInt(value) => Some(value.to_string()),
        _ => None,
    }
}
