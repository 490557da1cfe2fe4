//! What can go wrong between the outbox and the broker.

use std::path::PathBuf;
use std::time::Duration;

use amends_postgres::cursor::LaneError;
use thiserror::Error;

/// An error of the relay or of a consumer. None of them holds a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The URL of the broker cannot be read.
    #[error("the AMQP URL is not valid: {0}; it looks like amqp://user:password@host:5672/vhost")]
    Url(String),
    /// A file that the settings name cannot be read.
    #[error("cannot read the file of the {what}, {}: {source}", path.display())]
    File {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("the file of the {what}, {}, cannot be used: {problem}", path.display())]
    Content {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no connection.
    #[error("cannot connect to {broker}: {problem}; {mend}")]
    Connect {
        /// The broker, without its password.
        broker: String,
        /// What happened.
        problem: String,
        /// What helps.
        mend: &'static str,
        /// The client's error.
        source: Box<lapin::Error>,
    },
    /// An exchange, queue or binding is missing, is not as the settings say, or may not be touched.
    #[error("{item}: {problem}; {mend}")]
    Topology {
        /// What it is about, such as ``the queue `stock` ``.
        item: String,
        /// What the broker says.
        problem: String,
        /// What helps.
        mend: String,
    },
    /// The broker cannot be reached, or closed the connection or the channel.
    #[error("the broker: {0}")]
    Broker(#[from] lapin::Error),
    /// The broker did not answer in time.
    #[error("the broker did not answer `{what}` within {limit:?}")]
    Deadline {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The queue was deleted, or its node is gone.
    #[error("the broker stopped the consumer of queue `{0}`: the queue was deleted, or its node is gone")]
    QueueGone(String),
    /// The client library cannot read a message, and closes its connection.
    #[error(
        "a message of queue `{0}` cannot be read off the wire: a property, or the name of a header, is no UTF-8; remove it from the \
         head of the queue, and have its publisher mended"
    )]
    Unreadable(String),
    /// A dead letter found no queue.
    #[error(
        "exchange `{exchange}` does not take the dead letter ({refused}); it must exist and lead to a queue, as it does where \
         the consumer declares it"
    )]
    DeadLetter {
        /// The dead-letter exchange.
        exchange: String,
        /// What the broker said.
        refused: String,
    },
    /// A name is longer than AMQP allows.
    #[error("the {what} `{name}` is longer than the 255 bytes that AMQP allows")]
    NameTooLong {
        /// What has the name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The lane was lost, or the database failed.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The database failed.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema is missing, or of another version.
    #[error(transparent)]
    Schema(#[from] amends::StoreError),
}
