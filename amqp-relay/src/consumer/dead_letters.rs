//! Messages that can never be handled, on their way to the dead letters with the reason. None is let go of before the broker
//! has confirmed that a queue has it.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::Mutex;

use crate::broker::{self, short, within};
use crate::envelope::PERSISTENT;
use crate::{Broker, QueueTopology, RelayError};

/// The header of a dead letter that says why it is one.
pub const REASON_HEADER: &str = "amends-reason";
/// The header of a dead letter that names the consumer that could not handle it.
pub const CONSUMER_HEADER: &str = "amends-consumer";
/// The header of a dead letter that says how often it was tried.
pub const ATTEMPTS_HEADER: &str = "amends-attempts";
/// The header of a dead letter with the exchange that it was published to.
pub const EXCHANGE_HEADER: &str = "amends-exchange";
/// The header of a dead letter with the routing key that it was published under.
pub const ROUTING_KEY_HEADER: &str = "amends-routing-key";

/// A header travels in one frame with all the others.
const LONGEST_REASON: usize = 1024;
const CONFIRM: Duration = Duration::from_secs(30);

/// The way to the dead letters of one queue: a connection of its own, since a broker in need blocks those that publish, and with
/// it would go the acknowledgements. It is made with the first dead letter.
pub(super) struct DeadLetters {
    url: Broker,
    consumer: String,
    exchange: String,
    /// The name of the queue that is consumed.
    routing_key: String,
    topology: Option<QueueTopology>,
    open: Mutex<Option<(Connection, Channel)>>,
}

impl DeadLetters {
    pub(super) fn new(url: Broker, consumer: String, queue: &QueueTopology, declare: bool) -> Self {
        let grave = format!("{}.dead", queue.name);
        let exchange = queue.dead_letter_exchange.clone().unwrap_or_else(|| grave.clone());
        let routing_key = queue.name.clone();
        // A queue that names its dead-letter exchange declares the way to the grave itself.
        let topology = match queue.dead_letter_exchange {
            Some(_) => queue.clone(),
            None => QueueTopology { kind: queue.kind, ..QueueTopology::new(grave, &exchange, [&routing_key]) },
        };
        Self { url, consumer, exchange, routing_key, topology: declare.then_some(topology), open: Mutex::new(None) }
    }

    /// Declares exchange, queue and binding, if they are to be declared.
    pub(super) async fn declare(&self, channel: &Channel) -> Result<(), RelayError> {
        match &self.topology {
            Some(topology) => topology.declare(channel).await,
            None => Ok(()),
        }
    }

    /// Sends a message there, as it was, with the reason; `Ok` once a queue has it. Where all its headers leave no room for the
    /// reason, it goes without them.
    ///
    /// One at a time, so that a message that is returned can only be this one. On any error the connection is made anew.
    pub(super) async fn bury(&self, delivery: &Delivery, reason: &str, attempts: u32) -> Result<(), RelayError> {
        let headers = self.headers(delivery, reason, attempts);
        let mut open = self.open.lock().await;
        let (connection, channel) = match open.take() {
            Some(open) if open.1.status().connected() => open,
            _ => self.connect().await?,
        };
        let whole = whole(&delivery.properties, &headers);
        let properties = if fits(&whole, connection.configuration().frame_max()) {
            whole
        } else {
            tracing::warn!(
                consumer = self.consumer,
                "the headers of a dead letter leave no room for its reason; it goes without"
            );
            bare(&delivery.properties, &headers)
        };
        let sent = self.publish(&channel, &delivery.data, properties).await;
        if sent.is_ok() {
            *open = Some((connection, channel));
        } else {
            broker::close(&connection).await;
        }
        sent
    }

    async fn connect(&self) -> Result<(Connection, Channel), RelayError> {
        let connection = broker::connect(&self.url, &format!("{} dead letters", self.consumer)).await?;
        let channel = broker::confirmed_channel(&connection).await?;
        self.declare(&channel).await?;
        Ok((connection, channel))
    }

    async fn publish(&self, channel: &Channel, payload: &[u8], properties: BasicProperties) -> Result<(), RelayError> {
        let (exchange, key) = (short("exchange", &self.exchange)?, short("routing key", &self.routing_key)?);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = within(CONFIRM, "take a dead letter", async {
            channel.basic_publish(exchange, key, options, payload, properties).await?.await
        });
        let refused = match confirm.await? {
            Confirmation::Ack(None) => return Ok(()),
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => returned.reply_text.to_string(),
            Confirmation::Nack(None) => "nack".to_owned(),
            Confirmation::NotRequested => "the channel does not confirm".to_owned(),
        };
        Err(RelayError::DeadLetter { exchange: self.exchange.clone(), refused })
    }

    pub(super) async fn close(&self) {
        if let Some((connection, _)) = self.open.lock().await.take() {
            broker::close(&connection).await;
        }
    }

    fn headers(&self, delivery: &Delivery, reason: &str, attempts: u32) -> FieldTable {
        let mut headers = FieldTable::default();
        for (name, value) in [
            (REASON_HEADER, cut(reason)),
            (CONSUMER_HEADER, self.consumer.clone()),
            (EXCHANGE_HEADER, delivery.exchange.to_string()),
            (ROUTING_KEY_HEADER, delivery.routing_key.to_string()),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
        }
        headers.insert(ATTEMPTS_HEADER.into(), AMQPValue::LongLongInt(attempts.into()));
        headers
    }
}

/// All that it carried, but what would have the broker refuse it, forget it or send it elsewhere too.
fn whole(original: &BasicProperties, ours: &FieldTable) -> BasicProperties {
    let mut headers = original.headers().clone().unwrap_or_default();
    let mut kept = FieldTable::default();
    for (name, value) in std::mem::take(&mut headers).inner() {
        if !["CC", "BCC"].contains(&name.as_str()) {
            kept.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in ours.inner() {
        kept.insert(name.clone(), value.clone());
    }
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(kept);
    // Not the expiration, nor the user id, which must be that of this connection.
    let set = |properties: BasicProperties,
               value: &Option<ShortString>,
               with: fn(BasicProperties, ShortString) -> BasicProperties| {
        match value {
            Some(value) => with(properties, value.clone()),
            None => properties,
        }
    };
    let properties = set(properties, original.content_type(), BasicProperties::with_content_type);
    let properties = set(properties, original.content_encoding(), BasicProperties::with_content_encoding);
    let properties = set(properties, original.correlation_id(), BasicProperties::with_correlation_id);
    let properties = set(properties, original.reply_to(), BasicProperties::with_reply_to);
    let properties = set(properties, original.message_id(), BasicProperties::with_message_id);
    let properties = set(properties, original.kind(), BasicProperties::with_type);
    let properties = set(properties, original.app_id(), BasicProperties::with_app_id);
    let properties = match original.priority() {
        Some(priority) => properties.with_priority(*priority),
        None => properties,
    };
    match original.timestamp() {
        Some(timestamp) => properties.with_timestamp(*timestamp),
        None => properties,
    }
}

/// Whether the properties fit into one frame, as they must: else the broker closes the connection.
fn fits(properties: &BasicProperties, frame: u32) -> bool {
    /// Seven short texts, and what there is of a fixed size.
    const OTHERS: usize = 2048;
    let headers = properties.headers().as_ref().map_or(0, table_bytes);
    headers + OTHERS <= usize::try_from(frame).unwrap_or(usize::MAX)
}

fn table_bytes(table: &FieldTable) -> usize {
    4 + table.inner().iter().map(|(name, value)| 1 + name.as_str().len() + value_bytes(value)).sum::<usize>()
}

/// Of those of a fixed size, the most that any takes.
fn value_bytes(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(value_bytes).sum::<usize>(),
        AMQPValue::FieldTable(table) => table_bytes(table),
        _ => 8,
    }
}

/// All but the headers that it carried.
fn bare(original: &BasicProperties, ours: &FieldTable) -> BasicProperties {
    whole(&original.clone().with_headers(FieldTable::default()), ours)
}

/// A reason is payload: it comes from wherever an error came from.
fn cut(reason: &str) -> String {
    let mut end = reason.len().min(LONGEST_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < reason.len() { " … (cut)" } else { "" };
    format!("{}{cut}", amends::sanitize(&reason[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_nuls_and_megabytes_is_cut_between_two_characters() {
        let reason = cut(&"\0ü".repeat(1 << 20));
        assert!(reason.starts_with("␀ü␀") && reason.ends_with("(cut)"), "{reason}");
        assert!(reason.len() < 3 * LONGEST_REASON);
    }

    #[test]
    fn a_dead_letter_keeps_what_it_carried_but_what_would_harm_it() {
        let mut headers = FieldTable::default();
        headers.insert("CC".into(), AMQPValue::Boolean(true));
        headers.insert("rate".into(), AMQPValue::Double(0.5));
        headers.insert(REASON_HEADER.into(), AMQPValue::Void);
        let original = BasicProperties::default()
            .with_message_id("1".into())
            .with_user_id("somebody".into())
            .with_expiration("1000".into())
            .with_priority(3)
            .with_headers(headers);
        let mut ours = FieldTable::default();
        ours.insert(REASON_HEADER.into(), AMQPValue::LongLongInt(1));

        let dead = whole(&original, &ours);

        let headers = dead.headers().as_ref().unwrap().inner();
        assert_eq!(headers.get("rate"), Some(&AMQPValue::Double(0.5)));
        assert_eq!(headers.get(REASON_HEADER), Some(&AMQPValue::LongLongInt(1)), "ours are the latest");
        assert!(!headers.contains_key("CC"));
        assert_eq!((dead.user_id(), dead.expiration()), (&None, &None));
        assert_eq!((dead.priority(), dead.delivery_mode()), (&Some(3), &Some(PERSISTENT)));
        assert_eq!(dead.message_id().as_ref().map(ShortString::as_str), Some("1"));
    }
}
