//! A wave: messages published together on one channel, all confirmed before anything is decided.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::maybe_done;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::time::timeout;

use amends_postgres::cursor::Sequenced;

use crate::{RelayError, envelope};

/// What the broker said to one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has taken it, and routed it to a queue at least.
    Published,
    /// It has not.
    Refused(String),
}

/// Where and how a wave is published.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) exchange: ShortString,
    pub(crate) source: String,
    /// The routing key of replies.
    pub(crate) reply_to: Option<ShortString>,
    pub(crate) deadline: Duration,
}

/// Publishes a wave in its order and waits for every confirm. An error says nothing about any of its messages.
///
/// A returned message may be attached to the confirm of another one of the channel (lapin: 5 of 1 000), so returns are
/// matched by message id, and only once all confirms of the wave are in.
pub(crate) async fn publish(
    channel: &Channel,
    target: &Target,
    messages: &[&Sequenced],
) -> Result<Vec<Verdict>, RelayError> {
    let published = timeout(target.deadline, async {
        let mut publishes = Vec::with_capacity(messages.len());
        let mut unsendable = HashMap::new();
        for (index, message) in messages.iter().enumerate() {
            let properties = envelope::properties(message, &target.source, target.reply_to.as_ref());
            match (properties, envelope::routing_key(message)) {
                (Ok(properties), Ok(key)) => {
                    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                    let publish = channel.basic_publish(
                        target.exchange.clone(),
                        key,
                        options,
                        &message.message.payload,
                        properties,
                    );
                    let mut publish = Box::pin(maybe_done(publish));
                    // Polled once here, so that frames are written in order without waiting for the socket each time.
                    let _ = futures_util::poll!(&mut publish);
                    publishes.push((index, publish));
                }
                (Err(error), _) | (_, Err(error)) => {
                    unsendable.insert(index, error.to_string());
                }
            }
        }
        let mut confirms = Vec::with_capacity(publishes.len());
        for (index, mut publish) in publishes {
            publish.as_mut().await;
            let confirm = publish.as_mut().take_output().expect("it was awaited and is taken once")?;
            confirms.push((index, confirm));
        }
        // The last one first: it wakes this task once, and by then the others are mostly in.
        let mut confirmations = Vec::with_capacity(confirms.len());
        while let Some((index, confirm)) = confirms.pop() {
            confirmations.push((index, confirm.await));
        }
        Ok::<_, lapin::Error>((confirmations, unsendable))
    });
    let (confirmations, unsendable) = match published.await {
        Ok(published) => published?,
        Err(_) => return Err(RelayError::Deadline { what: "confirm", limit: target.deadline }),
    };
    decide(messages, confirmations, unsendable)
}

/// What the broker said to each message. Pure.
pub(super) fn decide(
    messages: &[&Sequenced],
    confirmations: Vec<(usize, lapin::Result<Confirmation>)>,
    unsendable: HashMap<usize, String>,
) -> Result<Vec<Verdict>, RelayError> {
    let mut returned = HashMap::new();
    let mut verdicts = vec![Verdict::Refused("the broker was not asked".into()); messages.len()];
    for (index, reason) in unsendable {
        verdicts[index] = Verdict::Refused(reason);
    }
    for (index, confirmation) in confirmations {
        let confirmation = confirmation?;
        verdicts[index] = match confirmation {
            Confirmation::Ack(_) => Verdict::Published,
            Confirmation::Nack(_) => Verdict::Refused("the broker refused it (nack)".into()),
            Confirmation::NotRequested => Verdict::Refused("the channel does not confirm".into()),
        };
        if let Some(back) = confirmation.take_message()
            && let Some(id) = back.delivery.properties.message_id()
        {
            returned.insert(id.to_string(), format!("the broker returned it: {} {}", back.reply_code, back.reply_text));
        }
    }
    for (message, verdict) in messages.iter().zip(&mut verdicts) {
        if let Some(reason) = returned.remove(&message.message.id.to_string()) {
            *verdict = Verdict::Refused(reason);
        }
    }
    Ok(verdicts)
}
