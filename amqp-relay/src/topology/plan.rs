//! What is to be there, one thing after the other: each needs only those before it. Pure.

use std::fmt;

use super::{Arguments, Binding, ExchangeKind, ExchangeTopology, QueueTopology, Topology};

/// One thing that the broker must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Exchange(ExchangeTopology),
    Queue {
        name: String,
        arguments: Arguments,
    },
    /// What an exchange, or else a queue, receives from an exchange.
    Binding {
        to_exchange: bool,
        to: String,
        from: String,
        key: String,
        arguments: Arguments,
    },
}

impl Topology {
    /// Everything: the exchanges, then the queues, then the bindings between them.
    pub(super) fn plan(&self) -> Vec<Item> {
        let mut exchanges = self.exchanges.clone();
        for queue in &self.queues {
            for implied in queue.implied_exchanges() {
                if exchanges.iter().all(|known| known.name != implied.name) {
                    exchanges.push(implied);
                }
            }
        }
        let mut bindings = Vec::new();
        for exchange in &exchanges {
            bindings.extend(exchange.bindings.iter().flat_map(|binding| binding.items(true, &exchange.name)));
        }
        let mut items = Vec::new();
        for queue in &self.queues {
            let kind = exchanges.iter().find(|known| known.name == queue.exchange).map(|exchange| &exchange.kind);
            items.extend(queue.items());
            bindings.extend(queue.binding_items(kind.unwrap_or(&queue.exchange_kind)));
        }
        exchanges.into_iter().map(Item::Exchange).chain(items).chain(bindings).collect()
    }
}

impl QueueTopology {
    /// A queue by itself, with the exchanges that it names.
    pub(super) fn plan(&self) -> Vec<Item> {
        let exchanges = self.implied_exchanges().into_iter().map(Item::Exchange);
        exchanges.chain(self.items()).chain(self.binding_items(&self.exchange_kind)).collect()
    }

    fn implied_exchanges(&self) -> Vec<ExchangeTopology> {
        let own = (!self.exchange.is_empty())
            .then(|| ExchangeTopology::new(self.exchange.as_str(), self.exchange_kind.clone()));
        own.into_iter().chain(self.dead_letter_exchange.as_deref().map(ExchangeTopology::from)).collect()
    }

    fn items(&self) -> Vec<Item> {
        let own = Item::Queue { name: self.name.clone(), arguments: self.all_arguments() };
        let grave = self
            .dead_letter_exchange
            .is_some()
            .then(|| Item::Queue { name: self.grave(), arguments: self.kind.arguments() });
        grave.into_iter().chain([own]).collect()
    }

    fn binding_items(&self, exchange_kind: &ExchangeKind) -> Vec<Item> {
        let mut bindings = self.bindings.clone();
        if !self.exchange.is_empty() && (exchange_kind.ignores_patterns() || !self.patterns.is_empty()) {
            let patterns = self.patterns.clone();
            bindings.insert(0, Binding { exchange: self.exchange.clone(), patterns, ..Binding::default() });
        }
        let grave = self.dead_letter_exchange.iter().flat_map(|dead| {
            let patterns = vec![self.name.clone()];
            Binding { exchange: dead.clone(), patterns, ..Binding::default() }.items(false, &self.grave())
        });
        grave.chain(bindings.iter().flat_map(|binding| binding.items(false, &self.name))).collect()
    }

    fn grave(&self) -> String {
        format!("{}.dead", self.name)
    }
}

impl Binding {
    fn items(&self, to_exchange: bool, to: &str) -> Vec<Item> {
        let item = |key| Item::Binding {
            to_exchange,
            to: to.to_owned(),
            from: self.exchange.clone(),
            key,
            arguments: self.all_arguments(),
        };
        self.keys().into_iter().map(item).collect()
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(exchange) => write!(f, "the exchange `{}`", exchange.name),
            Self::Queue { name, .. } => write!(f, "the queue `{name}`"),
            Self::Binding { to_exchange, to, from, key, arguments } => {
                let kind = if *to_exchange { "exchange" } else { "queue" };
                write!(f, "the binding of the {kind} `{to}` to the exchange `{from}`")?;
                match (key.as_str(), arguments.is_empty()) {
                    ("", true) => Ok(()),
                    ("", false) => write!(f, " by {}", shown(arguments)),
                    (key, true) => write!(f, " by `{key}`"),
                    (key, false) => write!(f, " by `{key}` and {}", shown(arguments)),
                }
            }
        }
    }
}

impl Item {
    /// What it is declared as.
    pub(super) fn wanted(&self) -> String {
        match self {
            Self::Exchange(exchange) => {
                let mut text = exchange.kind.name().to_owned();
                text.push_str(if exchange.durable { ", durable" } else { ", not durable" });
                if exchange.internal {
                    text.push_str(", internal");
                }
                let arguments = shown(&exchange.all_arguments());
                if arguments.is_empty() { text } else { format!("{text}, {arguments}") }
            }
            Self::Queue { arguments, .. } if arguments.is_empty() => "durable, without arguments".to_owned(),
            Self::Queue { arguments, .. } => format!("durable, {}", shown(arguments)),
            Self::Binding { .. } => self.to_string(),
        }
    }
}

fn shown(arguments: &Arguments) -> String {
    arguments.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::Match;
    use super::*;

    fn shown_plan(topology: &Topology) -> Vec<String> {
        topology.plan().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_thing_comes_after_those_that_it_needs() {
        let audit = ExchangeTopology {
            bindings: vec![Binding { exchange: "orders".into(), patterns: vec!["#".into()], ..Binding::default() }],
            ..ExchangeTopology::new("audit", ExchangeKind::Fanout)
        };
        let stock = QueueTopology {
            dead_letter_exchange: Some("graves".into()),
            ..QueueTopology::new("stock", "orders", ["order.*"])
        };
        let log = QueueTopology { name: "log".into(), exchange: "audit".into(), ..QueueTopology::default() };
        let topology = Topology { exchanges: vec![audit], queues: vec![stock, log], ..Topology::default() };
        assert_eq!(
            shown_plan(&topology),
            [
                "the exchange `audit`",
                "the exchange `orders`",
                "the exchange `graves`",
                "the queue `stock.dead`",
                "the queue `stock`",
                "the queue `log`",
                "the binding of the exchange `audit` to the exchange `orders` by `#`",
                "the binding of the queue `stock.dead` to the exchange `graves` by `stock`",
                "the binding of the queue `stock` to the exchange `orders` by `order.*`",
                "the binding of the queue `log` to the exchange `audit`",
            ]
        );
    }

    #[test]
    fn a_queue_is_declared_with_what_its_settings_say() {
        let queue = QueueTopology {
            kind: super::super::QueueKind::Quorum,
            dead_letter_exchange: Some("graves".into()),
            max_length: Some(10),
            max_bytes: Some(2000),
            overflow: Some(super::super::Overflow::RejectPublish),
            delivery_limit: Some(5),
            message_ttl_seconds: Some(60),
            single_active_consumer: true,
            arguments: [("x-queue-leader-locator".into(), "balanced".into())].into(),
            ..QueueTopology::new("stock", "orders", ["#"])
        };
        let own = queue.plan().into_iter().find(|item| item.to_string() == "the queue `stock`").unwrap();
        assert_eq!(
            own.wanted(),
            "durable, x-dead-letter-exchange = graves, x-dead-letter-routing-key = stock, x-delivery-limit = 5, \
             x-max-length = 10, x-max-length-bytes = 2000, x-message-ttl = 60000, x-overflow = reject-publish, \
             x-queue-leader-locator = balanced, x-queue-type = quorum, x-single-active-consumer = true"
        );
    }

    #[test]
    fn headers_are_bound_with_how_many_must_match() {
        let binding = Binding {
            exchange: "by-header".into(),
            headers: [("region".into(), "eu".into())].into(),
            matching: Match::Any,
            ..Binding::default()
        };
        let queue = QueueTopology { name: "eu".into(), bindings: vec![binding], ..QueueTopology::default() };
        let shown: Vec<_> = queue.plan().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "the queue `eu`",
                "the binding of the queue `eu` to the exchange `by-header` by region = eu, x-match = any"
            ]
        );
    }
}
