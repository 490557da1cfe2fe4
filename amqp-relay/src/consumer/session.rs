//! One connection: messages are taken, handled, and given back at its end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::batch::Gathering;
use super::lines::{Arrived, Lines};
use super::settle::Settling;
use crate::RelayError;
use crate::broker::{short, soon};

/// What was under way and is over.
enum Over {
    /// One that was handled alone, in this line.
    Alone(Option<String>),
    /// A batch; those that are to be handled alone.
    Batch(Vec<Arrived>),
}

type UnderWay<'a> = FuturesUnordered<BoxFuture<'a, Result<Over, RelayError>>>;

/// Which message is handled when.
struct Session<'a> {
    settling: &'a Settling<'a>,
    lines: Lines,
    gathering: Option<Gathering>,
    under_way: UnderWay<'a>,
}

/// Consumes until `shutdown`, or until the connection is lost. `on_message` is called with each message.
pub(super) async fn run(
    consumer: &Arc<Inner>,
    connection: &Connection,
    shutdown: &CancellationToken,
    mut on_message: impl FnMut(),
) -> Result<(), RelayError> {
    let channel = soon("open a channel", connection.create_channel()).await?;
    if consumer.settings.declare {
        consumer.queue.declare(&channel).await?;
        if consumer.queue.dead_letter_exchange.is_none() {
            consumer.dead_letters.declare(&channel).await?;
        }
    }
    soon("limit the prefetch", channel.basic_qos(consumer.settings.prefetch, BasicQosOptions::default())).await?;
    let (queue, tag) = (short("queue", &consumer.queue.name)?, short("consumer", &consumer.name)?);
    let consuming = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = soon("consume", consuming).await?;
    let settling = Settling { consumer, places: Semaphore::new(consumer.settings.concurrency), shutdown };
    let mut session = Session::new(&settling);
    loop {
        let due = session.gathering.as_ref().and_then(Gathering::due);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(over) = session.under_way.next() => session.go_on(over?),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => session.take_batch(),
            delivery = deliveries.next() => {
                let Some(delivery) = delivery.transpose()? else {
                    return Err(RelayError::QueueGone(consumer.queue.name.clone()));
                };
                on_message();
                session.arrive(delivery);
            }
        }
    }
    session.drain(&channel).await
}

impl<'a> Session<'a> {
    fn new(settling: &'a Settling<'a>) -> Self {
        let consumer = settling.consumer;
        let gathering = consumer.batching.map(Gathering::new);
        Self { settling, lines: Lines::new(consumer.settings.order), gathering, under_way: UnderWay::new() }
    }

    fn arrive(&mut self, delivery: Delivery) {
        let arrived = Arrived::new(delivery);
        match &mut self.gathering {
            Some(gathering) if arrived.message.is_ok() => gathering.push(arrived),
            _ => self.queue(arrived),
        }
    }

    /// Handles it alone, when its turn comes.
    fn queue(&mut self, arrived: Arrived) {
        if let Some(first) = self.lines.queue(arrived) {
            self.begin(first);
        }
    }

    fn begin(&mut self, first: Arrived) {
        let settling = self.settling;
        self.under_way.push(Box::pin(async move { settling.alone(first).await.map(Over::Alone) }));
    }

    fn take_batch(&mut self) {
        let Some(gathering) = &mut self.gathering else { return };
        let batch = gathering.take(&mut self.lines);
        if !batch.is_empty() {
            let settling = self.settling;
            self.under_way.push(Box::pin(async move { settling.together(batch).await.map(Over::Batch) }));
        }
    }

    fn go_on(&mut self, over: Over) {
        match over {
            Over::Alone(line) => {
                if let Some(next) = line.and_then(|line| self.lines.next(&line)) {
                    self.begin(next);
                }
            }
            Over::Batch(alone) => {
                if let Some(gathering) = &mut self.gathering {
                    gathering.under_way = false;
                }
                for arrived in alone {
                    self.queue(arrived);
                }
            }
        }
    }

    /// Finishes what is under way, but not for ever. The rest goes back to the queue, to its old place, with the connection.
    async fn drain(mut self, channel: &Channel) -> Result<(), RelayError> {
        let consumer = self.settling.consumer;
        // Where one consumer is active at a time, the next one begins as soon as this one has cancelled: before what is
        // under way here is finished, that would break the order.
        if !consumer.queue.single_active_consumer {
            let tag = short("consumer", &consumer.name)?;
            soon("stop consuming", channel.basic_cancel(tag, BasicCancelOptions::default())).await?;
        }
        let limit: Duration = consumer.settings.drain;
        let finished = timeout(limit, async {
            while let Some(over) = self.under_way.next().await {
                over?;
            }
            Ok(())
        });
        finished.await.unwrap_or_else(|_| {
            tracing::warn!(consumer = consumer.name, ?limit, "a handler is not finished; its message will come again");
            Ok(())
        })
    }
}
