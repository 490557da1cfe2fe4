//! How a consumer is put together, and what is wrong if it cannot be.

use std::sync::Arc;
use std::time::Duration;

use amends::{Message, Payloads};
use amends_postgres::Hints;
use sqlx::PgPool;
use thiserror::Error;

use super::batch::{Batching, Each, Many, Unpacked, Work};
use super::dead_letters::DeadLetters;
use super::handler::{Handle, HandleBatch, Handler};
use super::routes::Routes;
use super::{Consumer, Inner, Order, Settings};
use crate::{Broker, QueueTopology};

/// Puts a [`Consumer`] together; see [`Consumer::builder`].
#[must_use]
pub struct ConsumerBuilder {
    pool: PgPool,
    url: Broker,
    name: Option<String>,
    queue: Option<QueueTopology>,
    settings: Settings,
    routes: Routes,
    handler: Option<Arc<dyn Handler>>,
    batch: Option<(Batching, Arc<dyn Work>)>,
    payloads: Option<Payloads>,
    twice: Option<&'static str>,
}

impl std::fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerBuilder").field("name", &self.name).field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// Why a consumer cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// It has no name.
    #[error(
        "the consumer has no name; call `name(…)`: it is what its inbox rows are found by, so it must never change"
    )]
    NoName,
    /// The name is longer than AMQP allows.
    #[error("the name of the consumer `{0}` is longer than the 255 bytes that AMQP allows")]
    LongName(String),
    /// It has no queue.
    #[error("consumer `{0}` has no queue; call `queue(…)`")]
    NoQueue(String),
    /// Nobody handles what it receives.
    #[error(
        "consumer `{0}` has nobody to handle its messages; call `on(…)` for each type, or `handler(…)`, or `batch(…)`"
    )]
    NoHandler(String),
    /// A type has two handlers.
    #[error("consumer `{consumer}` has two handlers for `{message}`; give one of them to a consumer with another name")]
    TwoHandlers {
        /// The consumer.
        consumer: String,
        /// The type of message.
        message: &'static str,
    },
    /// `on`, `handler` and `batch` exclude each other.
    #[error(
        "consumer `{0}` is given messages in more than one way; use only one of `on(…)`, `handler(…)` and `batch(…)`"
    )]
    TwoWays(String),
    /// A number is zero.
    #[error("consumer `{consumer}`: `{setting}` is 0, so nothing would ever be handled; it is 1 at least")]
    Zero {
        /// The consumer.
        consumer: String,
        /// Which.
        setting: &'static str,
    },
    /// More messages than the broker sends ahead never come together.
    #[error(
        "consumer `{consumer}`: a batch of {size} never fills, since only {prefetch} are sent ahead; raise `prefetch(…)`"
    )]
    BatchNeverFills {
        /// The consumer.
        consumer: String,
        /// The size of a batch.
        size: usize,
        /// How many are sent ahead.
        prefetch: u16,
    },
}

impl ConsumerBuilder {
    pub(super) fn new(pool: PgPool, url: Broker) -> Self {
        Self {
            pool,
            url,
            name: None,
            queue: None,
            settings: Settings::default(),
            routes: Routes::default(),
            handler: None,
            batch: None,
            payloads: None,
            twice: None,
        }
    }

    /// Names it in the inbox: consumers of one name handle each message once between them. Never change it: under another
    /// name every copy that still comes takes effect again.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The queue that it consumes, with its bindings.
    ///
    /// Its dead letters go to the queue's `dead_letter_exchange`, and where it has none, to the exchange `<queue>.dead`; both lead
    /// to the queue `<queue>.dead`.
    pub fn queue(mut self, queue: QueueTopology) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Handles the messages of type `M` with `handler`; once for each type. See [`Handle`].
    pub fn on<M: Message + 'static>(mut self, handler: impl Handle<M>) -> Self {
        if !self.routes.add(handler) {
            self.twice = Some(M::NAME);
        }
        self
    }

    /// Acknowledges messages of a type that [`on`](Self::on) was not called for. Else they are dead letters, with the reason:
    /// nothing is lost silently.
    pub fn ignore_unknown(mut self) -> Self {
        self.routes.ignore_unknown = true;
        self
    }

    /// Handles all messages, whatever their type, with `handler`.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    /// Handles messages `size` at a time in one transaction, or as many as have come `wait` after the first.
    ///
    /// The inbox takes one statement for all of them. When the handler fails, they are handled one at a time, so that only the one
    /// to blame becomes a dead letter. The order of each line is kept.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use amends_relay::{Consumer, HandlerError, Incoming, QueueTopology};
    /// # use sqlx::PgConnection;
    /// # fn example(pool: sqlx::PgPool, url: amends_relay::Broker, queue: QueueTopology) -> Result<(), Box<dyn std::error::Error>> {
    /// async fn count(tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError> {
    ///     let names: Vec<&str> = messages.iter().map(|message| message.name.as_str()).collect();
    ///     let insert = "insert into heard (name) select * from unnest($1::text[])";
    ///     sqlx::query(insert).bind(names).execute(tx).await?;
    ///     Ok(())
    /// }
    ///
    /// let consumer = Consumer::builder(pool, url)
    ///     .name("counter")
    ///     .queue(queue)
    ///     .batch(50, Duration::from_millis(20), count)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(mut self, size: usize, wait: Duration, handler: impl HandleBatch) -> Self {
        self.batch = Some((Batching { size, wait }, Arc::new(Many(handler))));
        self
    }

    /// Hands messages over unpacked: fetched from where their payloads are kept, decrypted, decompressed. Those that were never
    /// packed come as they are.
    ///
    /// One whose payload cannot be had for good, such as of an encoding that is not registered here, is a dead letter, with the
    /// reason; while a store cannot be reached, it is tried again, for ever.
    pub fn payloads(mut self, payloads: Payloads) -> Self {
        self.payloads = Some(payloads);
        self
    }

    /// Which messages wait for each other. [`Order::Queue`].
    pub fn order(mut self, order: Order) -> Self {
        self.settings.order = order;
        self
    }

    /// How many messages are handled at once, each with a connection of the pool, where they need not wait for each other. 1.
    pub fn concurrency(mut self, at_once: usize) -> Self {
        self.settings.concurrency = at_once;
        self
    }

    /// How many messages the broker sends ahead: so many can wait behind one that fails. 100.
    pub fn prefetch(mut self, messages: u16) -> Self {
        self.settings.prefetch = messages;
        self
    }

    /// How often a message is tried, in all, before it is a dead letter; `u32::MAX` for ever. 10, which takes half a minute.
    ///
    /// Only a handler's own error ([`HandlerError::Retry`](crate::HandlerError::Retry)) and its panics count. While the database
    /// or the broker is away, no attempt is burned, however long that lasts. A new connection to the broker counts anew.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts;
        self
    }

    /// The longest pause before a message is tried again: pauses grow from 100 ms, with jitter. 10 s.
    pub fn longest_pause(mut self, pause: Duration) -> Self {
        self.settings.longest_pause = pause;
        self
    }

    /// For so long after a message was sent its copies are recognised; it must be shorter than the inbox is kept
    /// (`keep_inbox_days` of the relay, 30). 29 days.
    ///
    /// Whether an older message was handled before, nobody can tell any more: it is a dead letter, with that reason, unless
    /// [`accept_older`](Self::accept_older) is called. Its age is told by its id (UUID version 7), else by its
    /// `CloudEvents` time, else by its timestamp; a message without any of these has no age.
    pub fn window(mut self, window: Duration) -> Self {
        self.settings.window = window;
        self
    }

    /// Handles also messages older than the [`window`](Self::window), although they may have been handled before.
    pub fn accept_older(mut self) -> Self {
        self.settings.accept_older = true;
        self
    }

    /// How long a handler may leave its transaction idle, such as while it waits for another service: then the database ends the
    /// session, and the message is tried again. 30 s.
    ///
    /// It is for consumers that hang, or whose host is gone, in the middle of a message: whoever gets it next waits for that
    /// transaction.
    pub fn idle(mut self, limit: Duration) -> Self {
        self.settings.idle = limit;
        self
    }

    /// How long, when it is asked to stop, it finishes what it has begun. 10 s. What takes longer goes on in its transaction,
    /// but is delivered to another consumer, which waits for that transaction and recognises the copy.
    pub fn drain(mut self, limit: Duration) -> Self {
        self.settings.drain = limit;
        self
    }

    /// Whether the queue, its bindings and the way of its dead letters are declared at every connection, so that they come back
    /// if somebody deletes them. Yes.
    pub fn declare(mut self, declare: bool) -> Self {
        self.settings.declare = declare;
        self
    }

    /// Puts it together.
    ///
    /// # Errors
    /// [`ConsumerError`] says what is missing, or what contradicts.
    pub fn build(self) -> Result<Consumer, ConsumerError> {
        let Self { pool, url, name, queue, settings, routes, handler, batch, payloads, twice } = self;
        let name = name.filter(|name| !name.is_empty()).ok_or(ConsumerError::NoName)?;
        if name.len() > 255 {
            return Err(ConsumerError::LongName(name));
        }
        let queue = queue.ok_or_else(|| ConsumerError::NoQueue(name.clone()))?;
        let zeros = [
            ("concurrency", settings.concurrency == 0),
            ("prefetch", settings.prefetch == 0),
            ("attempts", settings.attempts == 0),
            ("idle", settings.idle.is_zero()),
            ("batch", batch.as_ref().is_some_and(|(batching, _)| batching.size == 0)),
        ];
        if let Some(&(setting, _)) = zeros.iter().find(|(_, is_zero)| *is_zero) {
            return Err(ConsumerError::Zero { consumer: name, setting });
        }
        if let Some(message) = twice {
            return Err(ConsumerError::TwoHandlers { consumer: name, message });
        }
        let (work, batching): (Arc<dyn Work>, _) = match (routes.is_empty(), handler, batch) {
            (true, None, None) => return Err(ConsumerError::NoHandler(name)),
            (false, None, None) => (Arc::new(Each(Arc::new(routes))), None),
            (true, Some(handler), None) => (Arc::new(Each(handler)), None),
            (true, None, Some((batching, work))) => (work, Some(batching)),
            _ => return Err(ConsumerError::TwoWays(name)),
        };
        let work = match payloads {
            Some(payloads) => Arc::new(Unpacked { payloads, work }),
            None => work,
        };
        if let Some(Batching { size, .. }) = batching
            && size > usize::from(settings.prefetch)
        {
            return Err(ConsumerError::BatchNeverFills { consumer: name, size, prefetch: settings.prefetch });
        }
        Ok(consumer(pool, url, name, queue, settings, (work, batching)))
    }

    /// A consumer of all messages of a queue, whose name and queue are known to be right.
    pub(crate) fn for_all(self, name: String, queue: QueueTopology, handler: impl Handler) -> Consumer {
        consumer(self.pool, self.url, name, queue, self.settings, (Arc::new(Each(Arc::new(handler))), None))
    }
}

fn consumer(
    pool: PgPool,
    url: Broker,
    name: String,
    queue: QueueTopology,
    settings: Settings,
    (work, batching): (Arc<dyn Work>, Option<Batching>),
) -> Consumer {
    let dead_letters = DeadLetters::new(url.clone(), name.clone(), &queue, settings.declare);
    let hints = Hints::of(&pool);
    Consumer(Arc::new(Inner { pool, _hints: hints, url, name, queue, settings, batching, work, dead_letters }))
}
