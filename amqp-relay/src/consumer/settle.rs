//! A delivery until it is settled: tried, tried again, acknowledged, or buried with the reason.

use std::sync::Arc;

use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::attempt::{Verdict, attempt};
use super::handler::HandlerError;
use super::lines::Arrived;
use crate::broker::soon;
use crate::pauses::Pauses;
use crate::{Incoming, RelayError, telemetry};

/// So often a batch is tried together while what it needs is away.
const TOGETHER: u32 = 4;

/// What every delivery of a session shares.
pub(super) struct Settling<'a> {
    pub(super) consumer: &'a Arc<Inner>,
    /// Whoever pauses before it tries again takes no place; the prefetch bounds how many there are.
    pub(super) places: Semaphore,
    pub(super) shutdown: &'a CancellationToken,
}

impl Settling<'_> {
    /// Handles a delivery alone until it is settled; at shutdown it is left to be delivered again. The answer is the line in
    /// which others wait behind it.
    pub(super) async fn alone(&self, arrived: Arrived) -> Result<Option<String>, RelayError> {
        let Arrived { delivery, message, line } = arrived;
        let (verdict, attempts) = match message {
            Err(reason) => (Verdict::Rejected(reason), 0),
            Ok(message) => match self.decide(message).await {
                Some(decided) => decided,
                None => return Ok(None),
            },
        };
        Ok(if self.conclude(&delivery, &verdict, attempts).await? { line } else { None })
    }

    /// Handles a batch. Those come back that must be handled alone: all of them if it fails, or if what they need stays away, which may
    /// be away for one of them only; and those that become dead letters, which may take as long as it likes. At shutdown they are left.
    pub(super) async fn together(&self, batch: Vec<Arrived>) -> Result<Vec<Arrived>, RelayError> {
        let messages: Result<Arc<[Incoming]>, &String> =
            batch.iter().map(|arrived| arrived.message.as_ref().cloned()).collect();
        let Ok(messages) = messages else { return Ok(batch) };
        let mut pauses = self.pauses();
        for _ in 0..TOGETHER {
            let Some(tried) = self.attempt(&messages, 1).await else { return Ok(Vec::new()) };
            match tried {
                Ok(verdicts) => return self.conclude_all(batch, &verdicts).await,
                Err(HandlerError::Unavailable(_)) => {
                    if !self.pause(&mut pauses).await {
                        return Ok(Vec::new());
                    }
                }
                Err(_) => return Ok(batch),
            }
        }
        Ok(batch)
    }

    async fn conclude_all(&self, batch: Vec<Arrived>, verdicts: &[Verdict]) -> Result<Vec<Arrived>, RelayError> {
        let mut alone = Vec::new();
        for (arrived, verdict) in batch.into_iter().zip(verdicts) {
            if matches!(verdict, Verdict::Rejected(_)) {
                alone.push(arrived);
            } else {
                self.conclude(&arrived.delivery, verdict, 1).await?;
            }
        }
        Ok(alone)
    }

    /// Tries until there is a verdict, or `None` at shutdown; with the attempts that it took.
    async fn decide(&self, message: Incoming) -> Option<(Verdict, u32)> {
        let limit = self.consumer.settings.attempts;
        let messages: Arc<[Incoming]> = Arc::new([message]);
        let mut pauses = self.pauses();
        let mut attempts: u32 = 0;
        loop {
            let number = attempts.saturating_add(1);
            match self.attempt(&messages, number).await? {
                Ok(verdicts) => return verdicts.into_iter().next().map(|verdict| (verdict, number)),
                Err(HandlerError::Reject(reason)) => return Some((Verdict::Rejected(reason), number)),
                Err(HandlerError::Unavailable(_)) => {}
                Err(HandlerError::Retry(_)) if limit == u32::MAX => {}
                Err(error @ HandlerError::Retry(_)) => {
                    attempts = number;
                    if attempts >= limit {
                        return Some((
                            Verdict::Rejected(format!("it failed {attempts} times, at last: {error}")),
                            attempts,
                        ));
                    }
                }
            }
            // Tried again here, so that the messages behind it do not overtake it.
            if !self.pause(&mut pauses).await {
                return None;
            }
        }
    }

    /// `None` at shutdown.
    async fn attempt(&self, messages: &Arc<[Incoming]>, number: u32) -> Option<Result<Vec<Verdict>, HandlerError>> {
        let _place = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return None,
            place = self.places.acquire() => place,
        };
        let tried = attempt(self.consumer, messages, number).await;
        if let Err(error @ (HandlerError::Retry(_) | HandlerError::Unavailable(_))) = &tried {
            let first = messages.first().map(|message| message.id.as_str());
            tracing::warn!(consumer = self.consumer.name, message = first, attempt = number, %error, "cannot handle a message now");
            self.count("retried");
        }
        Some(tried)
    }

    /// Tells the broker; `false` at shutdown, if it was not told.
    async fn conclude(&self, delivery: &Delivery, verdict: &Verdict, attempts: u32) -> Result<bool, RelayError> {
        let result = match verdict {
            Verdict::Done => "handled",
            Verdict::Duplicate => "duplicate",
            Verdict::Rejected(reason) => {
                if !self.bury(delivery, reason, attempts).await {
                    return Ok(false);
                }
                "rejected"
            }
        };
        self.count(result);
        // After the commit, or the broker's word: a message whose acknowledgement is lost comes again and is recognised.
        soon("acknowledge", delivery.acker.ack(BasicAckOptions::default())).await?;
        Ok(true)
    }

    /// Until a queue has it: a message that has nowhere to go is kept, and holds up its line, rather than be lost.
    async fn bury(&self, delivery: &Delivery, reason: &str, attempts: u32) -> bool {
        let mut pauses = self.pauses();
        loop {
            let id = delivery.properties.message_id().as_ref().map(lapin::types::ShortString::as_str);
            match self.consumer.dead_letters.bury(delivery, reason, attempts).await {
                Ok(()) => {
                    tracing::error!(
                        consumer = self.consumer.name,
                        message = id,
                        reason,
                        "a message became a dead letter"
                    );
                    return true;
                }
                Err(error) => {
                    tracing::error!(
                        consumer = self.consumer.name,
                        message = id,
                        reason,
                        %error,
                        "a message can neither be handled nor sent to the dead letters; it is kept, and tried again"
                    );
                    self.count("kept");
                }
            }
            if !self.pause(&mut pauses).await {
                return false;
            }
        }
    }

    fn count(&self, result: &'static str) {
        metrics::counter!(telemetry::HANDLED, "consumer" => self.consumer.name.clone(), "result" => result)
            .increment(1);
    }

    fn pauses(&self) -> Pauses {
        Pauses::up_to(self.consumer.settings.longest_pause)
    }

    /// `false` at shutdown.
    async fn pause(&self, pauses: &mut Pauses) -> bool {
        tokio::select! {
            () = sleep(pauses.take()) => true,
            () = self.shutdown.cancelled() => false,
        }
    }
}
