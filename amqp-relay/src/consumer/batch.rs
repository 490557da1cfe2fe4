//! Messages that are handled together, and those that are not as a batch of one.

use std::sync::Arc;
use std::time::Duration;

use amends::Payloads;
use async_trait::async_trait;
use sqlx::PgConnection;
use tokio::time::Instant;

use super::handler::{HandleBatch, Handler, HandlerError};
use super::lines::{Arrived, Lines};
use crate::Incoming;

/// How many messages make a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batching {
    pub(super) size: usize,
    /// How long the first of them waits for others.
    pub(super) wait: Duration,
}

/// What is done with the messages of one transaction.
#[async_trait]
pub(super) trait Work: Send + Sync {
    async fn work(&self, tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError>;
}

/// One after the other; there is one.
pub(super) struct Each(pub(super) Arc<dyn Handler>);

#[async_trait]
impl Work for Each {
    async fn work(&self, tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError> {
        for message in messages {
            self.0.handle(tx, message).await?;
        }
        Ok(())
    }
}

/// All at once.
pub(super) struct Many<H>(pub(super) H);

#[async_trait]
impl<H: HandleBatch> Work for Many<H> {
    async fn work(&self, tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError> {
        self.0.handle(tx, messages).await
    }
}

/// With their payloads as they were before they were packed.
pub(super) struct Unpacked {
    pub(super) payloads: Payloads,
    pub(super) work: Arc<dyn Work>,
}

#[async_trait]
impl Work for Unpacked {
    async fn work(&self, tx: &mut PgConnection, messages: &[Incoming]) -> Result<(), HandlerError> {
        if !messages.iter().any(Incoming::is_packed) {
            return self.work.work(tx, messages).await;
        }
        let mut unpacked = Vec::with_capacity(messages.len());
        for message in messages {
            unpacked.push(if message.is_packed() { message.unpack(&self.payloads).await? } else { message.clone() });
        }
        self.work.work(tx, &unpacked).await
    }
}

/// Messages that wait for their batch. One batch at a time is under way, so that none overtakes another.
pub(super) struct Gathering {
    batching: Batching,
    waiting: Vec<Arrived>,
    /// When the first of them has waited long enough.
    due: Option<Instant>,
    pub(super) under_way: bool,
}

impl Gathering {
    pub(super) fn new(batching: Batching) -> Self {
        Self { batching, waiting: Vec::new(), due: None, under_way: false }
    }

    pub(super) fn push(&mut self, arrived: Arrived) {
        self.due.get_or_insert_with(|| Instant::now() + self.batching.wait);
        self.waiting.push(arrived);
    }

    /// When the next batch is to be taken; `None` while one is under way, or nobody waits.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.under_way {
            return None;
        }
        if self.waiting.len() >= self.batching.size { Some(Instant::now()) } else { self.due }
    }

    /// The next batch. Those behind whom somebody of their line is handled alone wait in that line.
    pub(super) fn take(&mut self, lines: &mut Lines) -> Vec<Arrived> {
        let mut batch = Vec::with_capacity(self.batching.size.min(self.waiting.len()));
        let mut rest = Vec::new();
        for arrived in self.waiting.drain(..) {
            if lines.is_busy(&arrived) {
                let alone = lines.queue(arrived);
                debug_assert!(alone.is_none(), "its line is busy");
            } else if batch.len() < self.batching.size {
                batch.push(arrived);
            } else {
                rest.push(arrived);
            }
        }
        self.due = (!rest.is_empty()).then(Instant::now);
        self.waiting = rest;
        self.under_way = !batch.is_empty();
        batch
    }
}
