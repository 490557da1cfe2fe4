//! Messages on the wire: `CloudEvents` 1.0 in binary mode over AMQP, with W3C trace context in the headers.
//!
//! The attributes have the prefix `cloudEvents_`, which the binding prefers to `cloudEvents:`. The key is the event's partition
//! key, by the extension of that name.

use std::collections::BTreeMap;

use amends::{CONTENT_ENCODING_HEADER, CORRELATION_HEADER, IDEMPOTENCY_HEADER, sanitize};
use amends_postgres::cursor::Sequenced;
use chrono::SecondsFormat;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use crate::RelayError;
use crate::broker::short;

/// The header with the ordering key.
pub const KEY_HEADER: &str = "cloudEvents_partitionkey";
/// The header with the message's place in the outbox: messages of one key have growing numbers.
pub const SEQ_HEADER: &str = "amends-seq";

/// Under this name handlers see the property of the same name.
pub(crate) const CONTENT_TYPE_HEADER: &str = "content-type";

/// Persistent, always.
pub(crate) const PERSISTENT: u8 = 2;

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
    headers.insert("cloudEvents_specversion".into(), text("1.0"));
    headers.insert("cloudEvents_id".into(), text(&id));
    headers.insert("cloudEvents_type".into(), text(&message.name));
    headers.insert("cloudEvents_source".into(), text(source));
    let time = sequenced.created_at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    headers.insert("cloudEvents_time".into(), text(&time));
    headers.insert(SEQ_HEADER.into(), AMQPValue::LongLongInt(sequenced.seq));
    if let Some(key) = &message.key {
        headers.insert(KEY_HEADER.into(), text(key));
    }
    for (name, attribute) in [("traceparent", "cloudEvents_traceparent"), ("tracestate", "cloudEvents_tracestate")] {
        if let Some(value) = message.headers.get(name) {
            headers.insert(attribute.into(), text(value));
        }
    }
    let mut properties = BasicProperties::default();
    if let Some(encodings) = message.headers.get(CONTENT_ENCODING_HEADER) {
        properties = properties.with_content_encoding(short("content encoding", encodings)?);
    }
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

/// The headers of a message that was received, those that are texts or whole numbers, and what describes its content.
pub(crate) fn headers(properties: &BasicProperties) -> BTreeMap<String, String> {
    let all = properties.headers().iter().flat_map(FieldTable::inner);
    let mut headers: BTreeMap<_, _> =
        all.filter_map(|(name, value)| Some((sanitize(name.as_str()), readable(value)?))).collect();
    let described =
        [(CONTENT_TYPE_HEADER, properties.content_type()), (CONTENT_ENCODING_HEADER, properties.content_encoding())];
    for (name, property) in described {
        // A publisher in another language may set only the property; ours sets both.
        if let Some(value) = property.as_ref().map(|value| sanitize(value.as_str())).filter(|value| !value.is_empty()) {
            headers.insert(name.to_owned(), value);
        }
    }
    headers
}

fn readable(value: &AMQPValue) -> Option<String> {
    Some(match value {
        // Whole: a codec may keep a wrapped key there.
        AMQPValue::LongString(value) => String::from_utf8_lossy(value.as_bytes()).replace('\0', "␀"),
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

    fn message(headers: &[(&str, &str)]) -> OutboxMessage {
        OutboxMessage {
            id: MessageId::new(),
            topic: "parcel.ship".into(),
            name: "parcel.ship".into(),
            key: None,
            content_type: "application/json".into(),
            headers: headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            payload: b"{}".to_vec(),
        }
    }

    fn published(headers: &[(&str, &str)], reply_to: Option<&ShortString>) -> BasicProperties {
        let message = message(headers);
        properties(&Sequenced { message, seq: 1, created_at: chrono::Utc::now() }, "test", reply_to).unwrap()
    }

    #[test]
    fn an_event_is_a_cloud_event_in_binary_mode() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = [("traceparent", trace), (CONTENT_ENCODING_HEADER, "zstd"), ("custom", "x")];
        let message = OutboxMessage { key: Some("o-7".into()), ..message(&headers) };
        let created_at = chrono::DateTime::UNIX_EPOCH + chrono::Duration::milliseconds(1_500);
        let properties = properties(&Sequenced { message, seq: 7, created_at }, "/shop/orders", None).unwrap();

        let found = super::headers(&properties);
        let expected = [
            ("specversion", "1.0"),
            ("type", "parcel.ship"),
            ("source", "/shop/orders"),
            ("time", "1970-01-01T00:00:01.500Z"),
            ("partitionkey", "o-7"),
            ("traceparent", trace),
        ];
        for (attribute, value) in expected {
            assert_eq!(found[&format!("cloudEvents_{attribute}")], value, "{attribute}");
        }
        let id = properties.message_id().as_ref().unwrap().to_string();
        assert_eq!((&found["cloudEvents_id"], &*found["traceparent"], &*found["custom"]), (&id, trace, "x"));
        // `datacontenttype` is the property itself, and has no header.
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
        assert!(!found.contains_key("cloudEvents_datacontenttype") && !found.contains_key("cloudEvents_tracestate"));
        assert_eq!(properties.content_encoding().as_ref().unwrap().as_str(), "zstd");
        let names = found.keys().filter_map(|name| name.strip_prefix("cloudEvents_"));
        assert!(
            names.clone().all(|name| name.chars().all(|c| c.is_ascii_lowercase())),
            "names as the specification wants"
        );
        assert_eq!(names.count(), 7);
    }

    #[test]
    fn every_header_that_is_sent_is_in_the_document() {
        let document = amends::asyncapi::Document::new("Orders", "1").to_json();
        let documented =
            document["components"]["messageTraits"]["amends"]["headers"]["properties"].as_object().unwrap();
        let trace = [("traceparent", "00-0-0-01"), ("tracestate", "a=b")];
        let message = OutboxMessage { key: Some("k".into()), ..message(&trace) };
        let sent = properties(&Sequenced { message, seq: 1, created_at: chrono::Utc::now() }, "test", None).unwrap();
        for header in super::headers(&sent).keys().filter(|&header| header != CONTENT_TYPE_HEADER) {
            assert!(documented.contains_key(header), "{header}: {documented:?}");
        }
    }

    #[test]
    fn what_describes_the_content_is_seen_though_only_a_property_says_it() {
        let foreign = BasicProperties::default()
            .with_content_type("application/x-protobuf".into())
            .with_content_encoding("gzip".into());
        let found = headers(&foreign);
        assert_eq!(
            (&*found[CONTENT_TYPE_HEADER], &*found[CONTENT_ENCODING_HEADER]),
            ("application/x-protobuf", "gzip")
        );
        assert!(headers(&BasicProperties::default().with_content_encoding("".into())).is_empty());
    }

    #[test]
    fn what_fits_the_outbox_fits_a_message() {
        let longest = "x".repeat(amends::MAX_NAME_BYTES);
        let message = OutboxMessage {
            topic: longest.clone(),
            name: longest.clone(),
            content_type: longest.clone(),
            ..message(&[(&longest, &longest), (CONTENT_ENCODING_HEADER, &longest)])
        };
        message.check().unwrap();
        let sequenced = Sequenced { message, seq: 1, created_at: chrono::Utc::now() };
        assert!(properties(&sequenced, "test", None).is_ok() && short("routing key", &longest).is_ok());
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
