//! Declares what is to be there, or looks whether it is.

use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ErrorKind};

use super::plan::Item;
use super::{QueueTopology, Topology, TopologyMode, table};
use crate::RelayError;
use crate::broker::{self, Broker, short, soon};

/// How it stands with one thing of a [`Topology`].
#[derive(Debug)]
pub struct Outcome {
    /// The thing, such as ``the queue `stock` ``.
    pub item: String,
    /// What was done or found, or why it is not as it should be.
    pub result: Result<Checked, RelayError>,
}

/// What was done or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checked {
    /// It is there, as the settings say.
    Declared,
    /// It is there; whether with these arguments cannot be seen over AMQP.
    Exists,
    /// It cannot be seen over AMQP.
    Unseen,
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Declared => "declared",
            Self::Exists => "exists; its kind and arguments cannot be checked over AMQP",
            Self::Unseen => "cannot be checked over AMQP",
        })
    }
}

impl Topology {
    /// Does what the mode says, up to the first thing that fails, which ends the channel of its own. It is safe to repeat.
    pub(crate) async fn provide(&self, connection: &Connection) -> Result<(), RelayError> {
        let channel = &soon("open a channel", connection.create_channel()).await?;
        for item in self.plan() {
            item.provide(channel, self.mode).await?;
        }
        Ok(())
    }

    /// Does what the mode says on a connection of its own, up to the first thing that fails; a relay does so at every
    /// connection.
    ///
    /// # Errors
    /// [`RelayError::Topology`] says what is not as it should be; others, that the broker cannot be reached.
    ///
    /// # Idempotency
    /// May be repeated.
    pub async fn ensure(&self, broker: &Broker) -> Result<(), RelayError> {
        let connection = broker::connect(broker, "amends topology").await?;
        let provided = self.provide(&connection).await;
        broker::close(&connection).await;
        provided
    }

    /// Does what the mode says, goes on behind what fails, and tells how it stands with each thing.
    ///
    /// # Errors
    /// When the broker cannot be reached at all.
    pub async fn report(&self, broker: &Broker) -> Result<Vec<Outcome>, RelayError> {
        let mut connection = broker::connect(broker, "amends topology").await?;
        let mut outcomes = Vec::new();
        for item in self.plan() {
            let result = item.provide_on_its_own(&connection, self.mode).await;
            if result.is_err() && !connection.status().connected() {
                connection = broker::connect(broker, "amends topology").await?;
            }
            outcomes.push(Outcome { item: item.to_string(), result });
        }
        broker::close(&connection).await;
        Ok(outcomes)
    }
}

impl QueueTopology {
    /// Declares the queue and the exchanges that it names. It is safe to repeat.
    pub(crate) async fn declare(&self, channel: &Channel) -> Result<(), RelayError> {
        for item in self.plan() {
            item.provide(channel, TopologyMode::Declare).await?;
        }
        Ok(())
    }
}

impl Item {
    /// On a channel of its own, which an error closes.
    async fn provide_on_its_own(&self, connection: &Connection, mode: TopologyMode) -> Result<Checked, RelayError> {
        let channel = soon("open a channel", connection.create_channel()).await?;
        let checked = self.provide(&channel, mode).await?;
        soon("close a channel", channel.close(200, "bye".into())).await?;
        Ok(checked)
    }

    async fn provide(&self, channel: &Channel, mode: TopologyMode) -> Result<Checked, RelayError> {
        let done = match mode {
            TopologyMode::Off => return Ok(Checked::Unseen),
            TopologyMode::Declare => self.declare(channel).await.map(|()| Checked::Declared),
            TopologyMode::Verify => self.verify(channel).await,
        };
        done.map_err(|error| self.explain(error))
    }

    async fn declare(&self, channel: &Channel) -> Result<(), RelayError> {
        match self {
            Self::Exchange(exchange) => {
                let options = ExchangeDeclareOptions {
                    durable: exchange.durable,
                    internal: exchange.internal,
                    ..ExchangeDeclareOptions::default()
                };
                let name = short("exchange", &exchange.name)?;
                let arguments = table(&exchange.all_arguments());
                let declared = channel.exchange_declare(name, kind(exchange.kind.name()), options, arguments);
                soon("declare an exchange", declared).await
            }
            Self::Queue { name, arguments } => {
                let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
                let declared = channel.queue_declare(short("queue", name)?, options, table(arguments));
                soon("declare a queue", declared).await.map(drop)
            }
            Self::Binding { to_exchange, to, from, key, arguments } => {
                let (to, from, key) = (short("name", to)?, short("exchange", from)?, short("pattern", key)?);
                let arguments = table(arguments);
                if *to_exchange {
                    let options = ExchangeBindOptions::default();
                    soon("bind an exchange", channel.exchange_bind(to, from, key, options, arguments)).await
                } else {
                    let options = QueueBindOptions::default();
                    soon("bind a queue", channel.queue_bind(to, from, key, options, arguments)).await
                }
            }
        }
    }

    async fn verify(&self, channel: &Channel) -> Result<Checked, RelayError> {
        match self {
            Self::Exchange(exchange) => {
                let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                let name = short("exchange", &exchange.name)?;
                let found = channel.exchange_declare(name, kind(exchange.kind.name()), options, FieldTable::default());
                soon("look for an exchange", found).await?;
                Ok(Checked::Exists)
            }
            Self::Queue { name, .. } => {
                let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                let found = channel.queue_declare(short("queue", name)?, options, FieldTable::default());
                soon("look for a queue", found).await?;
                Ok(Checked::Exists)
            }
            Self::Binding { .. } => Ok(Checked::Unseen),
        }
    }

    /// Says of the broker's refusal what it is about and what helps.
    fn explain(&self, error: RelayError) -> RelayError {
        let RelayError::Broker(refusal) = &error else { return error };
        let ErrorKind::ProtocolError(refusal) = refusal.kind() else { return error };
        let broker_says = refusal.get_message().to_string();
        let (problem, mend) = match refusal.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => (
                broker_says,
                "create what is missing, or have it declared (`topology = \"declare\"`, TopologyMode::Declare)".to_owned(),
            ),
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => (
                format!("{broker_says}; wanted: {}", self.wanted()),
                "change the settings to what the broker has, or delete it there once it is empty, so that it is declared \
                 anew"
                    .to_owned(),
            ),
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => (
                broker_says,
                "give the user the permissions to configure, write and read it, or have it declared by another and set \
                 `topology = \"verify\"` (TopologyMode::Verify)"
                    .to_owned(),
            ),
            AMQPErrorKind::Hard(AMQPHardError::COMMANDINVALID) => {
                (broker_says, "enable the plugin that it needs, or change its kind".to_owned())
            }
            _ => return error,
        };
        RelayError::Topology { item: self.to_string(), problem, mend }
    }
}

fn kind(name: &str) -> lapin::ExchangeKind {
    match name {
        "topic" => lapin::ExchangeKind::Topic,
        "direct" => lapin::ExchangeKind::Direct,
        "fanout" => lapin::ExchangeKind::Fanout,
        "headers" => lapin::ExchangeKind::Headers,
        name => lapin::ExchangeKind::Custom(name.to_owned()),
    }
}
