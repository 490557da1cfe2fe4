//! The exchanges, queues and bindings that are declared on request.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, ExchangeKind};
use serde::{Deserialize, Serialize};

use crate::RelayError;
use crate::broker::{short, soon};

/// What is declared at every connection, so that it is there again after a broker has lost it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    /// Topic exchanges.
    pub exchanges: Vec<String>,
    /// Queues, with their bindings.
    pub queues: Vec<QueueTopology>,
}

/// A durable queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueTopology {
    /// Its name.
    pub name: String,
    /// Classic or quorum.
    #[serde(default)]
    pub kind: QueueKind,
    /// The exchange that it is bound to.
    pub exchange: String,
    /// The routing patterns that it receives, such as `stock.*` or `#`.
    pub patterns: Vec<String>,
    /// What its consumer refuses for good goes to this exchange, and from there to the queue `<name>.dead`.
    #[serde(default)]
    pub dead_letter_exchange: Option<String>,
    /// Of several consumers one gets all messages, and another only when that one is gone: so their order is kept across
    /// instances. A queue that exists without it must be deleted first.
    #[serde(default)]
    pub single_active_consumer: bool,
}

/// The type of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueKind {
    /// Kept by one node.
    #[default]
    Classic,
    /// Replicated; survives the loss of a node.
    Quorum,
}

impl Topology {
    /// Declares everything. It is safe to repeat.
    ///
    /// # Errors
    /// Returns the broker's error, such as 406 when a queue exists with other arguments.
    pub(crate) async fn declare(&self, channel: &Channel) -> Result<(), RelayError> {
        for exchange in &self.exchanges {
            declare_exchange(channel, exchange).await?;
        }
        for queue in &self.queues {
            queue.declare(channel).await?;
        }
        Ok(())
    }
}

impl QueueTopology {
    /// A classic queue that is bound to an exchange by these patterns.
    pub fn new(
        name: impl Into<String>,
        exchange: impl Into<String>,
        patterns: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let patterns = patterns.into_iter().map(Into::into).collect();
        Self { name: name.into(), exchange: exchange.into(), patterns, ..Self::default() }
    }

    pub(crate) async fn declare(&self, channel: &Channel) -> Result<(), RelayError> {
        declare_exchange(channel, &self.exchange).await?;
        let mut arguments = self.kind.arguments();
        if let Some(dead) = &self.dead_letter_exchange {
            declare_exchange(channel, dead).await?;
            let grave = format!("{}.dead", self.name);
            declare_queue(channel, &grave, self.kind.arguments()).await?;
            bind(channel, &grave, dead, &self.name).await?;
            arguments.insert("x-dead-letter-exchange".into(), text(dead));
            arguments.insert("x-dead-letter-routing-key".into(), text(&self.name));
        }
        if self.single_active_consumer {
            arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        }
        declare_queue(channel, &self.name, arguments).await?;
        for pattern in &self.patterns {
            bind(channel, &self.name, &self.exchange, pattern).await?;
        }
        Ok(())
    }
}

impl QueueKind {
    fn arguments(self) -> FieldTable {
        let mut arguments = FieldTable::default();
        if self == Self::Quorum {
            arguments.insert("x-queue-type".into(), text("quorum"));
        }
        arguments
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

async fn declare_exchange(channel: &Channel, name: &str) -> Result<(), RelayError> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let name = short("exchange", name)?;
    soon("declare an exchange", channel.exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default()))
        .await
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), RelayError> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    soon("declare a queue", channel.queue_declare(short("queue", name)?, options, arguments)).await.map(drop)
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, pattern: &str) -> Result<(), RelayError> {
    let (queue, exchange, pattern) = (short("queue", queue)?, short("exchange", exchange)?, short("pattern", pattern)?);
    soon(
        "bind a queue",
        channel.queue_bind(queue, exchange, pattern, QueueBindOptions::default(), FieldTable::default()),
    )
    .await
}
