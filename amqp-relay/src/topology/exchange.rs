//! An exchange that is to be there.

use serde::{Deserialize, Serialize};

use super::{Arguments, Binding};

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

    /// What it is declared with.
    pub(super) fn all_arguments(&self) -> Arguments {
        let mut arguments = self.arguments.clone();
        let alternate = self.alternate_exchange.as_deref();
        arguments.extend(alternate.map(|name| ("alternate-exchange".to_owned(), name.into())));
        arguments
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

    pub(super) fn ignores_patterns(&self) -> bool {
        matches!(self, Self::Fanout | Self::Headers)
    }
}

fn yes() -> bool {
    true
}
