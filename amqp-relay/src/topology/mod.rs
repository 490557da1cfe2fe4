//! The exchanges, queues and bindings that a relay or a consumer needs.

mod exchange;
mod plan;
mod provide;
mod queue;

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldTable, LongString};
use serde::{Deserialize, Serialize};

pub use exchange::{ExchangeKind, ExchangeTopology};
pub use provide::{Checked, Outcome};
pub use queue::{Overflow, QueueKind, QueueTopology};

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

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format, Toml};

    use super::*;

    fn read(toml: &str) -> Result<Topology, String> {
        Figment::from(Toml::string(toml)).extract().map_err(|error| error.to_string())
    }

    #[test]
    fn settings_say_as_much_as_code() {
        let read = read(
            "
            mode = 'verify'
            [[exchanges]]
            name = 'audit'
            kind = 'x-random'
            alternate_exchange = 'lost'
            bindings = [{ exchange = 'orders', patterns = ['#'] }]
            [[queues]]
            name = 'eu'
            overflow = 'reject-publish'
            bindings = [{ exchange = 'by-region', headers = { region = 'eu', vip = true }, match = 'any' }]
            arguments = { 'x-expires' = 60000 }
            ",
        );
        let audit = ExchangeTopology {
            alternate_exchange: Some("lost".into()),
            bindings: vec![Binding { exchange: "orders".into(), patterns: vec!["#".into()], ..Binding::default() }],
            ..ExchangeTopology::new("audit", ExchangeKind::Plugin("x-random".into()))
        };
        let by_region = Binding {
            exchange: "by-region".into(),
            headers: [("region".into(), "eu".into()), ("vip".into(), Argument::Flag(true))].into(),
            matching: Match::Any,
            ..Binding::default()
        };
        let eu = QueueTopology {
            name: "eu".into(),
            overflow: Some(Overflow::RejectPublish),
            bindings: vec![by_region],
            arguments: [("x-expires".into(), Argument::Number(60_000))].into(),
            ..QueueTopology::default()
        };
        assert_eq!(read, Ok(Topology { exchanges: vec![audit], queues: vec![eu], mode: TopologyMode::Verify }));
    }

    #[test]
    fn what_is_misspelt_is_refused() {
        for toml in ["[[queues]]\npatterns = ['#']", "[[queues]]\nname = 'a'\nmax_lenght = 1", "mode = 'maybe'"] {
            assert!(read(toml).is_err(), "{toml}");
        }
    }
}
