//! Messages, starts, events and pauses as columns, for statements over `unnest`.

use std::time::Duration;

use amends::OutboxMessage;
use amends::store::{Append, Claim, NewSaga};
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, Encode, Postgres, Type};
use uuid::Uuid;

/// No pause is longer: a century. A time beyond the calendar's end would be an error.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(100 * 365 * 24);

/// A pause in milliseconds, as a column.
pub(crate) fn millis(pause: Duration) -> i64 {
    pause.min(LONGEST_PAUSE).as_millis() as i64
}

/// How many rows, as a column.
pub(crate) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// What a worker can run, as columns of names and of versions.
pub(crate) fn registered(claim: &Claim) -> (Vec<&str>, Vec<i32>) {
    claim.registered.iter().map(|(name, version)| (name.as_str(), *version as i32)).unzip()
}

pub(crate) fn encode(error: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::Encode(error.into())
}

/// A journal row's number.
pub(crate) fn seq(append: &Append) -> Result<i32, sqlx::Error> {
    i32::try_from(append.seq).map_err(encode)
}

/// A journal row's events, a text.
pub(crate) fn events(append: &Append) -> Result<String, sqlx::Error> {
    serde_json::to_string(&append.events).map_err(encode)
}

/// The columns of a statement, bound in their order.
#[derive(Default)]
pub(crate) struct Bound {
    arguments: PgArguments,
    error: Option<BoxDynError>,
}

impl Bound {
    pub(crate) fn add<'t, T: Encode<'t, Postgres> + Type<Postgres>>(&mut self, column: T) {
        if let Err(error) = self.arguments.add(column) {
            self.error.get_or_insert(error);
        }
    }

    pub(crate) fn finish(self) -> Result<PgArguments, sqlx::Error> {
        self.error.map_or(Ok(self.arguments), |error| Err(encode(error)))
    }
}

/// The columns of `amends.outbox` that a statement names: never `xid` and `seq`, which only the database may give.
#[derive(Debug, Default)]
pub(crate) struct OutboxColumns {
    ids: Vec<Uuid>,
    keys: Vec<Option<String>>,
    topics: Vec<String>,
    names: Vec<String>,
    content_types: Vec<String>,
    headers: Vec<String>,
    payloads: Vec<Vec<u8>>,
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

    /// Id, key, topic, name, content type, headers (a text), payload.
    pub(crate) fn bind(&self, bound: &mut Bound) {
        bound.add(&self.ids);
        bound.add(&self.keys);
        bound.add(&self.topics);
        bound.add(&self.names);
        bound.add(&self.content_types);
        bound.add(&self.headers);
        bound.add(&self.payloads);
    }
}

impl<'a> FromIterator<&'a OutboxMessage> for OutboxColumns {
    fn from_iter<T: IntoIterator<Item = &'a OutboxMessage>>(messages: T) -> Self {
        let mut columns = Self::default();
        messages.into_iter().for_each(|message| columns.push(message));
        columns
    }
}

/// The columns of `amends.saga` that a start names.
#[derive(Debug, Default)]
pub(crate) struct StartColumns<'a> {
    ids: Vec<Uuid>,
    names: Vec<&'a str>,
    versions: Vec<i32>,
    fingerprints: Vec<Uuid>,
    keys: Vec<Option<&'a str>>,
    inputs: Vec<&'a str>,
    traces: Vec<Option<&'a str>>,
    priorities: Vec<i16>,
    parents: Vec<Option<Uuid>>,
}

impl<'a> StartColumns<'a> {
    pub(crate) fn push(&mut self, saga: &'a NewSaga) {
        self.ids.push(saga.id.0);
        self.names.push(&saga.name);
        self.versions.push(saga.version as i32);
        self.fingerprints.push(saga.fingerprint);
        self.keys.push(saga.key.as_deref());
        self.inputs.push(saga.input.as_str());
        self.traces.push(saga.trace.as_deref());
        self.priorities.push(saga.priority.as_i16());
        self.parents.push(saga.parent.map(Uuid::from));
    }

    /// Id, name, version, fingerprint, key, input (a text), trace, priority, parent.
    pub(crate) fn bind(&self, bound: &mut Bound) {
        bound.add(&self.ids);
        bound.add(&self.names);
        bound.add(&self.versions);
        bound.add(&self.fingerprints);
        bound.add(&self.keys);
        bound.add(&self.inputs);
        bound.add(&self.traces);
        bound.add(&self.priorities);
        bound.add(&self.parents);
    }
}

impl<'a> FromIterator<&'a NewSaga> for StartColumns<'a> {
    fn from_iter<T: IntoIterator<Item = &'a NewSaga>>(sagas: T) -> Self {
        let mut columns = Self::default();
        sagas.into_iter().for_each(|saga| columns.push(saga));
        columns
    }
}
