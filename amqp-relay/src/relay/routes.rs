//! Where messages go: rules from the type of a message to an exchange and a routing key. Pure.

use std::sync::Arc;

use amends::{CORRELATION_HEADER, IDEMPOTENCY_HEADER, OutboxMessage};
use serde::{Deserialize, Serialize};

/// A rule: messages of these types go there.
///
/// In the TOML of the relay:
///
/// ```toml
/// [[routes]]
/// types = "invoice.*"
/// exchange = "accounting"
///
/// [[routes]]
/// types = "audit.#"
/// exchange = "audit"
/// routing_key = "{type}.{key}"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The types that it is for, by a pattern as AMQP topics have: `*` is one word, `#` is any number of words.
    pub types: String,
    /// The exchange; the relay's own if there is none.
    #[serde(default)]
    pub exchange: Option<String>,
    /// The routing key, in which `{topic}`, `{type}` and `{key}` stand for those of the message; its topic if there is none.
    #[serde(default)]
    pub routing_key: Option<String>,
}

/// An exchange; cheap to clone.
pub(crate) type Exchange = Arc<str>;

/// The rules of a relay; the first that fits counts. Answers to requests go where they are awaited, whatever the rules say.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    default: Exchange,
    rules: Vec<(Route, Exchange)>,
    /// Everything goes to this queue, over the default exchange.
    queue: Option<String>,
}

impl Routes {
    pub(crate) fn new(default: &str, routes: &[Route]) -> Self {
        let default: Exchange = default.into();
        let rule = |route: &Route| {
            let exchange = route.exchange.as_deref().map_or_else(|| Arc::clone(&default), Into::into);
            (route.clone(), exchange)
        };
        Self { rules: routes.iter().map(rule).collect(), default, queue: None }
    }

    pub(crate) fn to_queue(queue: &str) -> Self {
        Self { default: "".into(), rules: Vec::new(), queue: Some(queue.to_owned()) }
    }

    pub(crate) fn exchange(&self, message: &OutboxMessage) -> Exchange {
        Arc::clone(self.rule(message).map_or(&self.default, |(_, exchange)| exchange))
    }

    pub(crate) fn routing_key(&self, message: &OutboxMessage) -> String {
        if let Some(queue) = &self.queue {
            return queue.clone();
        }
        match self.rule(message).and_then(|(route, _)| route.routing_key.as_deref()) {
            Some(template) => template
                .replace("{topic}", &message.topic)
                .replace("{type}", &message.name)
                .replace("{key}", message.key.as_deref().unwrap_or_default()),
            None => message.topic.clone(),
        }
    }

    fn rule(&self, message: &OutboxMessage) -> Option<&(Route, Exchange)> {
        let has = |header: &str| message.headers.contains_key(header);
        if has(CORRELATION_HEADER) && !has(IDEMPOTENCY_HEADER) {
            return None;
        }
        self.rules.iter().find(|(route, _)| fits(&route.types, &message.name))
    }
}

/// Whether a topic fits a pattern, as AMQP 0-9-1 (section 3.1.3.3) says.
pub(crate) fn fits(pattern: &str, topic: &str) -> bool {
    fn words(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern.split_first(), topic.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), None) => words(rest, topic),
            (Some((&"#", rest)), Some((_, left))) => words(rest, topic) || words(pattern, left),
            (Some((&word, rest)), Some((&first, left))) => (word == "*" || word == first) && words(rest, left),
            _ => false,
        }
    }
    words(&pattern.split('.').collect::<Vec<_>>(), &topic.split('.').collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_pattern_fits_as_in_a_topic_exchange() {
        for (pattern, topic) in
            [("#", "a.b"), ("a.*", "a.b"), ("a.#", "a"), ("a.#", "a.b.c"), ("#.c", "a.b.c"), ("*.b", "a.b"), ("a", "a")]
        {
            assert!(fits(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in [("a.*", "a"), ("a.*", "a.b.c"), ("b.#", "a"), ("a", "ab"), ("*", "a.b")] {
            assert!(!fits(pattern, topic), "{pattern} {topic}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_says_where_a_message_goes() {
        let route = |types: &str, exchange: Option<&str>, key: Option<&str>| Route {
            types: types.into(),
            exchange: exchange.map(Into::into),
            routing_key: key.map(Into::into),
        };
        let rules =
            [route("a.*", Some("x"), None), route("a.b", Some("y"), None), route("b", None, Some("{type}/{key}"))];
        let routes = Routes::new("default", &rules);
        let message = |name: &str, key: Option<&str>| OutboxMessage {
            id: amends::MessageId::new(),
            topic: "topic".into(),
            name: name.into(),
            key: key.map(Into::into),
            content_type: String::new(),
            headers: BTreeMap::new(),
            payload: Vec::new(),
        };
        let goes = |message: &OutboxMessage| (routes.exchange(message).to_string(), routes.routing_key(message));
        assert_eq!(goes(&message("a.b", None)), ("x".into(), "topic".into()));
        assert_eq!(goes(&message("b", Some("k"))), ("default".into(), "b/k".into()));
        assert_eq!(goes(&message("c", None)), ("default".into(), "topic".into()));
    }
}
