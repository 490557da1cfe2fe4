//! Messages and pauses as columns, for statements over `unnest`.

use std::time::Duration;

use amends::OutboxMessage;
use uuid::Uuid;

/// A pause in milliseconds, as a column; one that is too long for it is as good as the longest.
pub(crate) fn millis(pause: Duration) -> i64 {
    i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)
}

/// The columns of `amends.outbox` that a statement names: never `xid` and `seq`, which only the database may give.
#[derive(Debug, Default)]
pub(crate) struct OutboxColumns {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) keys: Vec<Option<String>>,
    pub(crate) topics: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) content_types: Vec<String>,
    pub(crate) headers: Vec<String>,
    pub(crate) payloads: Vec<Vec<u8>>,
}

impl OutboxColumns {
    pub(crate) fn push(&mut self, message: &OutboxMessage) {
        self.ids.push(message.id.0);
        self.keys.push(message.key.clone());
        self.topics.push(message.topic.clone());
        self.names.push(message.name.clone());
        self.content_types.push(message.content_type.clone());
        self.headers.push(serde_json::to_string(&message.headers).unwrap_or_else(|_| "{}".into()));
        self.payloads.push(message.payload.clone());
    }
}

impl<'a> FromIterator<&'a OutboxMessage> for OutboxColumns {
    fn from_iter<T: IntoIterator<Item = &'a OutboxMessage>>(messages: T) -> Self {
        let mut columns = Self::default();
        messages.into_iter().for_each(|message| columns.push(message));
        columns
    }
}
