//! A queue that is to be there.

use serde::{Deserialize, Serialize};

use super::{Argument, Arguments, Binding, ExchangeKind};

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
    /// How often a quorum queue delivers a message before it goes to the dead letters, or, without a `dead_letter_exchange`, is
    /// dropped. RabbitMQ 4: 20, also if nothing is set.
    #[serde(default)]
    pub delivery_limit: Option<u64>,
    /// How many seconds a message may wait before it goes to the dead letters, or, without a `dead_letter_exchange`, is dropped.
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
    pub(super) fn all_arguments(&self) -> Arguments {
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
    pub(super) fn arguments(self) -> Arguments {
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
