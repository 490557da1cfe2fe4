//! Messages on the wire: `CloudEvents` 1.0 in binary mode over AMQP, with W3C trace context in the headers.

use std::collections::BTreeMap;

use amends::{CORRELATION_HEADER, IDEMPOTENCY_HEADER, sanitize};
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

/// A request also gets the properties by which anybody answers it, in any language.
pub(crate) fn properties(
    sequenced: &Sequenced,
    source: &str,
    reply_to: Option<&ShortString>,
) -> Result<BasicProperties, RelayError> {
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
    let mut properties = BasicProperties::default();
    if let Some(correlation) = message.headers.get(CORRELATION_HEADER) {
        // One that is too long for the property is in the header all the same.
        if let Ok(id) = ShortString::try_new(correlation.as_str()) {
            properties = properties.with_correlation_id(id);
        }
        // A reply has a correlation too, and wants no answer.
        if let Some(reply_to) = reply_to
            && message.headers.contains_key(IDEMPOTENCY_HEADER)
        {
            properties = properties.with_reply_to(reply_to.clone());
        }
    }
    Ok(properties
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short("message id", &id)?)
        .with_content_type(short("content type", &message.content_type)?)
        .with_type(short("message type", &message.name)?)
        .with_timestamp(u64::try_from(sequenced.created_at.timestamp()).unwrap_or_default())
        .with_headers(headers))
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// The headers of a message that was received, those that are texts or whole numbers.
pub(crate) fn headers(properties: &BasicProperties) -> BTreeMap<String, String> {
    let all = properties.headers().iter().flat_map(FieldTable::inner);
    all.filter_map(|(name, value)| Some((sanitize(name.as_str()), readable(value)?))).collect()
}

fn readable(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(value) => sanitize(&String::from_utf8_lossy(value.as_bytes())),
        AMQPValue::ShortString(value) => sanitize(value.as_str()),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use amends::{MessageId, OutboxMessage};

    use super::*;

    fn published(headers: &[(&str, &str)], reply_to: Option<&ShortString>) -> BasicProperties {
        let message = OutboxMessage {
            id: MessageId::new(),
            topic: "parcel.ship".into(),
            name: "parcel.ship".into(),
            key: None,
            content_type: "application/json".into(),
            headers: headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            payload: b"{}".to_vec(),
        };
        properties(&Sequenced { message, seq: 1, created_at: chrono::Utc::now() }, "test", reply_to).unwrap()
    }

    #[test]
    fn only_a_request_asks_for_an_answer() {
        let home = ShortString::from("home");
        let of = |headers: &[(&str, &str)], reply_to| {
            let properties = published(headers, reply_to);
            let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
            (text(properties.correlation_id()), text(properties.reply_to()))
        };
        let (correlation, key) = ((CORRELATION_HEADER, "c"), (IDEMPOTENCY_HEADER, "k"));
        assert_eq!(of(&[], Some(&home)), (None, None));
        assert_eq!(of(&[correlation, key], Some(&home)), (Some("c".into()), Some("home".into())));
        assert_eq!(of(&[correlation, key], None), (Some("c".into()), None));
        assert_eq!(of(&[correlation], Some(&home)), (Some("c".into()), None), "a reply wants no answer");
        let long = "c".repeat(256);
        assert_eq!(of(&[(CORRELATION_HEADER, &long), key], Some(&home)), (None, Some("home".into())));
        assert_eq!(headers(&published(&[(CORRELATION_HEADER, &long)], None))[CORRELATION_HEADER], long);
    }
}
