//! The exchanges, queues and bindings that a relay or a consumer needs.

mod plan;
mod provide;

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldTable, LongString};
use serde::{Deserialize, Serialize};

pub use provide::{Checked, Outcome};

/// What must be there when messages are published, and what the relay does for that at every connection.
///
/// ```
/// use amends_relay::{ExchangeKind, ExchangeTopology, QueueKind, QueueTopology, Topology, TopologyMode};
///
/// let topology = Topology {
///     exchanges: vec![
///         "orders".into(),
///         ExchangeTopology { kind: ExchangeKind::Fanout, ..ExchangeTopology::from("audit") },
///     ],
///     queues: vec![QueueTopology {
///         kind: QueueKind::Quorum,
///         delivery_limit: Some(5),
///         dead_letter_exchange: Some("stock.dead".into()),
///         ..QueueTopology::new("stock", "orders", ["order.placed", "order.cancelled"])
///     }],
///     mode: TopologyMode::Declare,
/// };
/// # assert_eq!(topology.queues[0].patterns.len(), 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    /// The exchanges, with their bindings to other exchanges.
    pub exchanges: Vec<ExchangeTopology>,
    /// Queues, with their bindings.
    pub queues: Vec<QueueTopology>,
    /// Whether it is declared, only looked for, or left to others. Declared.
    pub mode: TopologyMode,
}

/// What is done with a [`Topology`] at every connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopologyMode {
    /// It is declared, so that it is there again after a broker has lost it. The user needs the permission to configure.
    #[default]
    Declare,
    /// Every exchange and queue must exist, or nothing is published. Their arguments, and bindings, cannot be looked at over
    /// AMQP.
    Verify,
    /// Nothing is done.
    Off,
}

/// An exchange. By default a durable topic exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeTopology {
    /// Its name.
    pub name: String,
    /// How it routes. Topic.
    #[serde(default)]
    pub kind: ExchangeKind,
    /// It outlives a restart of the broker. Yes.
    #[serde(default = "yes")]
    pub durable: bool,
    /// Only other exchanges may publish to it. No.
    #[serde(default)]
    pub internal: bool,
    /// Where messages go that it can route nowhere. They count as routed, and so are neither returned nor held.
    #[serde(default)]
    pub alternate_exchange: Option<String>,
    /// What it receives from other exchanges.
    #[serde(default)]
    pub bindings: Vec<Binding>,
    /// Further arguments, such as those of a plugin.
    #[serde(default)]
    pub arguments: Arguments,
}

/// How an exchange routes. In settings its name: `topic`, `direct`, `fanout`, `headers`, or that of a plugin's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ExchangeKind {
    /// By patterns of the routing key, such as `order.*` or `#`.
    #[default]
    Topic,
    /// By the routing key as it is.
    Direct,
    /// To all that is bound.
    Fanout,
    /// By headers.
    Headers,
    /// As a plugin of the broker does, such as `x-delayed-message`.
    Plugin(String),
}

/// A durable queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueTopology {
    /// Its name.
    pub name: String,
    /// Classic or quorum. Classic.
    #[serde(default)]
    pub kind: QueueKind,
    /// The exchange that it is bound to; it is declared with the queue. Empty if there are only `bindings`; in the settings of
    /// the binary, the exchange that it publishes to.
    #[serde(default)]
    pub exchange: String,
    /// How that exchange routes, unless the topology says it. Topic.
    #[serde(default)]
    pub exchange_kind: ExchangeKind,
    /// The routing patterns that it receives, such as `stock.*` or `#`.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// More bindings, also to other exchanges, which must exist.
    #[serde(default)]
    pub bindings: Vec<Binding>,
    /// What its consumer refuses for good goes to this exchange, and from there to the queue `<name>.dead`.
    #[serde(default)]
    pub dead_letter_exchange: Option<String>,
    /// How many messages it has room for.
    #[serde(default)]
    pub max_length: Option<u64>,
    /// How many bytes of messages it has room for.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// What happens to the message that is one too many.
    #[serde(default)]
    pub overflow: Option<Overflow>,
    /// How often a quorum queue delivers a message before it goes to the dead letters.
    #[serde(default)]
    pub delivery_limit: Option<u64>,
    /// How many seconds a message may wait before it goes to the dead letters.
    #[serde(default)]
    pub message_ttl_seconds: Option<u64>,
    /// Of many consumers only one gets messages, so that they keep an order. No.
    #[serde(default)]
    pub single_active_consumer: bool,
    /// Further arguments. One of a name that is set above replaces it.
    #[serde(default)]
    pub arguments: Arguments,
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

/// What happens to a message for which a queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// The oldest messages are dropped, or go to the dead letters.
    DropHead,
    /// It is refused, and held by the relay until there is room.
    RejectPublish,
    /// It is refused, and goes to the dead letters as well.
    RejectPublishDlx,
}

/// What a queue, or an exchange, receives from an exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The exchange that it comes from.
    pub exchange: String,
    /// The patterns of the routing key, or for a direct exchange the routing keys. None for fanout and headers exchanges.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// The headers that a headers exchange compares.
    #[serde(default)]
    pub headers: Arguments,
    /// How many of the headers must be equal. All.
    #[serde(default, rename = "match")]
    pub matching: Match,
}

/// How many headers of a [`Binding`] must be equal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// Every one.
    #[default]
    All,
    /// At least one.
    Any,
}

/// Arguments by name.
pub type Arguments = BTreeMap<String, Argument>;

/// The value of an argument or header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Argument {
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
}

impl ExchangeTopology {
    /// A durable exchange of this kind.
    pub fn new(name: impl Into<String>, kind: ExchangeKind) -> Self {
        Self {
            name: name.into(),
            kind,
            durable: true,
            internal: false,
            alternate_exchange: None,
            bindings: Vec::new(),
            arguments: Arguments::new(),
        }
    }
}

impl<T: Into<String>> From<T> for ExchangeTopology {
    /// A durable topic exchange.
    fn from(name: T) -> Self {
        Self::new(name, ExchangeKind::Topic)
    }
}

impl From<String> for ExchangeKind {
    fn from(name: String) -> Self {
        match name.as_str() {
            "topic" => Self::Topic,
            "direct" => Self::Direct,
            "fanout" => Self::Fanout,
            "headers" => Self::Headers,
            _ => Self::Plugin(name),
        }
    }
}

impl From<ExchangeKind> for String {
    fn from(kind: ExchangeKind) -> Self {
        kind.name().to_owned()
    }
}

impl ExchangeKind {
    /// What the broker calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Topic => "topic",
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Headers => "headers",
            Self::Plugin(name) => name,
        }
    }

    fn ignores_patterns(&self) -> bool {
        matches!(self, Self::Fanout | Self::Headers)
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

    /// What it is declared with.
    fn all_arguments(&self) -> Arguments {
        let mut arguments = self.kind.arguments();
        let mut set = |name: &str, value: Option<Argument>| {
            arguments.extend(value.map(|value| (name.to_owned(), value)));
        };
        let number = |value: Option<u64>| value.map(Argument::from);
        if let Some(dead) = &self.dead_letter_exchange {
            set("x-dead-letter-exchange", Some(dead.as_str().into()));
            set("x-dead-letter-routing-key", Some(self.name.as_str().into()));
        }
        set("x-max-length", number(self.max_length));
        set("x-max-length-bytes", number(self.max_bytes));
        set("x-overflow", self.overflow.map(|overflow| overflow.name().into()));
        set("x-delivery-limit", number(self.delivery_limit));
        set("x-message-ttl", number(self.message_ttl_seconds.map(|seconds| seconds.saturating_mul(1000))));
        set("x-single-active-consumer", self.single_active_consumer.then_some(Argument::Flag(true)));
        arguments.extend(self.arguments.clone());
        arguments
    }
}

impl QueueKind {
    fn arguments(self) -> Arguments {
        match self {
            Self::Classic => Arguments::new(),
            Self::Quorum => [("x-queue-type".to_owned(), "quorum".into())].into(),
        }
    }
}

impl Overflow {
    fn name(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
            Self::RejectPublishDlx => "reject-publish-dlx",
        }
    }
}

impl Binding {
    /// The routing keys that it is declared with: one at least.
    fn keys(&self) -> Vec<String> {
        if self.patterns.is_empty() { vec![String::new()] } else { self.patterns.clone() }
    }

    fn all_arguments(&self) -> Arguments {
        let mut arguments = self.headers.clone();
        if !arguments.is_empty() {
            let matching = if self.matching == Match::Any { "any" } else { "all" };
            arguments.insert("x-match".to_owned(), matching.into());
        }
        arguments
    }
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Argument {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl std::fmt::Display for Argument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn table(arguments: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Text(text) => AMQPValue::LongString(LongString::from(text.as_str())),
        };
        table.insert(name.as_str().into(), value);
    }
    table
}

fn yes() -> bool {
    true
}
