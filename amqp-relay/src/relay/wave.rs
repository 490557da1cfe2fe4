//! A wave: messages published together on one channel, all confirmed before anything is decided.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use amends_postgres::cursor::Sequenced;
use futures_util::FutureExt;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, ConnectionStatus, PublisherConfirm};
use tokio::time::timeout;

use crate::broker::{short, soon};
use crate::relay::routes::Routes;
use crate::{RelayError, envelope};

/// What the broker said to one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has taken it, and routed it to a queue at least.
    Published,
    /// It has not.
    Refused(String),
    /// It has not, and takes none for this exchange: that says nothing about the message.
    Unreachable(String),
    /// It has closed the channel before it said anything: over this message, or over another of the wave.
    Unknown,
    /// It has said nothing, though it talks to us, and may have taken it.
    Unanswered,
}

/// Where and how waves are published.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) routes: Arc<Routes>,
    pub(crate) source: String,
    /// The routing key of replies.
    pub(crate) reply_to: Option<ShortString>,
    /// How long nothing at all may come.
    pub(crate) deadline: Duration,
    /// The most that headers and key may take.
    pub(crate) most_headers: usize,
    /// Of the connection: while it is blocked, the deadline does not count.
    pub(crate) status: ConnectionStatus,
}

/// The most that headers and key may take: with more, the broker would close the connection (all properties are one frame), and would do so
/// again and again. What a publisher checks before its commit is less; rows come from SQL, too.
pub(crate) fn most_headers(frame_max: u32) -> usize {
    /// What a frame has besides: the properties, and the headers that the relay adds.
    const OTHERS: usize = 8 * 1024;
    let frame = if frame_max == 0 { usize::MAX } else { frame_max as usize };
    frame.saturating_sub(OTHERS).min(100 * 1024)
}

/// The deadline has so many turns. It begins anew after one in which something came, or in which the broker was blocked.
const TURNS: u32 = 10;

/// Why a message is not published whose confirm does not come: its queue may have lost its majority, which no other suffers from.
pub(crate) const UNANSWERED: &str = "the broker has neither taken nor refused it in time";

/// Publishes a wave in its order and waits for every confirm; for those that do not come, until nothing has come for the deadline. Then
/// it closes the channel. An error says nothing about any of its messages.
///
/// A returned message may be attached to the confirm of another one of the channel (lapin: 5 of 1 000), so returns are
/// matched by message id, and only once all confirms of the wave are in.
pub(crate) async fn publish(
    channel: &Channel,
    target: &Target,
    exchange: &str,
    messages: &[&Sequenced],
) -> Result<Vec<Verdict>, RelayError> {
    // From an operator, perhaps.
    let exchange = match short("exchange", exchange) {
        Ok(exchange) => exchange,
        Err(error) => return Ok(vec![Verdict::Refused(error.to_string()); messages.len()]),
    };
    let mut unsendable = HashMap::new();
    let mut flight = Flight::default();
    for (index, sequenced) in messages.iter().enumerate() {
        let message = &sequenced.message;
        let headers = message.headers_bytes();
        if headers > target.most_headers {
            let reason = format!("its headers and key have {headers} bytes, and {} is the most", target.most_headers);
            unsendable.insert(index, reason);
            continue;
        }
        let properties = envelope::properties(sequenced, &target.source, target.reply_to.as_ref());
        match (properties, short("routing key", &target.routes.routing_key(message))) {
            (Ok(properties), Ok(key)) => {
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let publish = channel.basic_publish(exchange.clone(), key, options, &message.payload, properties);
                let mut publish: Publish<'_> = Box::pin(publish);
                // Polled once here, so that frames are written in order without waiting for the socket each time.
                match futures_util::poll!(&mut publish) {
                    Poll::Ready(sent) => flight.sent(index, sent),
                    Poll::Pending => flight.publishes.push_back((index, publish)),
                }
            }
            (Err(error), _) | (_, Err(error)) => {
                unsendable.insert(index, error.to_string());
            }
        }
    }
    let mut waited = 0;
    while timeout(target.deadline / TURNS, flight.land()).await.is_err() {
        if !target.status.connected() && waited + 1 == TURNS {
            return Err(RelayError::Deadline { what: "confirm", limit: target.deadline });
        }
        let has_come = flight.collect();
        let is_blocked = target.status.blocked() && target.status.connected();
        waited = if has_come || is_blocked { 0 } else { waited + 1 };
        if waited == TURNS {
            // A connection that is dead shows when the next channel is opened.
            _ = soon("close a channel", channel.close(200, UNANSWERED.into())).await;
            break;
        }
    }
    let unanswered = flight.unanswered();
    let mut verdicts = decide(messages, flight.answers, unsendable)?;
    for index in unanswered {
        verdicts[index] = Verdict::Unanswered;
    }
    Ok(verdicts)
}

type Publish<'a> = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send + 'a>>;

/// What is on its way.
#[derive(Default)]
struct Flight<'a> {
    publishes: VecDeque<(usize, Publish<'a>)>,
    confirms: Vec<(usize, PublisherConfirm)>,
    answers: Vec<(usize, lapin::Result<Confirmation>)>,
}

impl Flight<'_> {
    fn sent(&mut self, index: usize, sent: lapin::Result<PublisherConfirm>) {
        match sent {
            Ok(confirm) => self.confirms.push((index, confirm)),
            Err(error) => self.answers.push((index, Err(error))),
        }
    }

    /// Waits for every confirm. Nothing is lost if it is not waited for any more.
    async fn land(&mut self) {
        while let Some((index, publish)) = self.publishes.front_mut() {
            let (index, sent) = (*index, publish.await);
            self.publishes.pop_front();
            self.sent(index, sent);
        }
        // The last one first: it wakes this task once, and by then the others are mostly in.
        while let Some((index, confirm)) = self.confirms.last_mut() {
            let answer = (*index, confirm.await);
            self.confirms.pop();
            self.answers.push(answer);
        }
    }

    /// Takes the confirms that are in although one before them is not; whether there was any.
    fn collect(&mut self) -> bool {
        let before = self.confirms.len();
        for (index, mut confirm) in std::mem::take(&mut self.confirms) {
            match (&mut confirm).now_or_never() {
                Some(answer) => self.answers.push((index, answer)),
                None => self.confirms.push((index, confirm)),
            }
        }
        self.confirms.len() < before
    }

    fn unanswered(&self) -> Vec<usize> {
        let publishes = self.publishes.iter().map(|(index, _)| *index);
        publishes.chain(self.confirms.iter().map(|(index, _)| *index)).collect()
    }
}

/// What the broker said to each message; an error if the connection has failed. Pure.
pub(super) fn decide(
    messages: &[&Sequenced],
    answers: Vec<(usize, lapin::Result<Confirmation>)>,
    unsendable: HashMap<usize, String>,
) -> lapin::Result<Vec<Verdict>> {
    let mut returned = HashMap::new();
    let mut verdicts = vec![Verdict::Unknown; messages.len()];
    let mut errors = Vec::new();
    for (index, reason) in unsendable {
        verdicts[index] = Verdict::Refused(reason);
    }
    for (index, answer) in answers {
        let confirmation = match answer {
            Ok(confirmation) => confirmation,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
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
        // An id may be there twice: rows come from SQL, too.
        if let Some(reason) = returned.get(&message.message.id.to_string()) {
            *verdict = Verdict::Refused(reason.clone());
        }
    }
    let Some(first) = errors.first() else { return Ok(verdicts) };
    // Other errors follow from the one by which the broker closed the channel.
    let Some(closed) = errors.iter().find_map(closure) else { return Err(first.clone()) };
    let alone = messages.len() == 1;
    verdicts.iter_mut().filter(|verdict| **verdict == Verdict::Unknown).for_each(|verdict| match &closed {
        Closure::Exchange(reason) => *verdict = Verdict::Unreachable(reason.clone()),
        Closure::Message(reason) if alone => *verdict = Verdict::Refused(reason.clone()),
        Closure::Message(_) => {}
    });
    Ok(verdicts)
}

/// Why the broker closes a channel on which is published.
enum Closure {
    /// The exchange is not there, or may not be written to: no message gets through.
    Exchange(String),
    /// It does not like one of the messages.
    Message(String),
}

/// `None` if it is the connection that has failed.
fn closure(error: &lapin::Error) -> Option<Closure> {
    const ACCESS_REFUSED: u16 = 403;
    const NOT_FOUND: u16 = 404;
    let lapin::ErrorKind::ProtocolError(amqp) = error.kind() else { return None };
    if !error.is_amqp_soft_error() {
        return None;
    }
    let text = amqp.get_message().as_str();
    let reason = format!("the broker closed the channel: {text}");
    match amqp.get_id() {
        // Topics may be forbidden one by one. An exchange may have "topic" in its name.
        ACCESS_REFUSED if text.contains("access to topic '") => Some(Closure::Message(reason)),
        ACCESS_REFUSED | NOT_FOUND => Some(Closure::Exchange(reason)),
        _ => Some(Closure::Message(reason)),
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPSoftError};

    use super::*;

    #[test]
    fn a_forbidden_topic_is_a_verdict_on_the_message_and_a_forbidden_exchange_is_none() {
        let closed = |text: &str| {
            let error = AMQPError::new(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), text.into());
            closure(&lapin::ErrorKind::ProtocolError(error).into()).unwrap()
        };
        let topic = "ACCESS_REFUSED - write access to topic 'a.b' in exchange 'x' in vhost '/' refused for user 'u'";
        assert!(matches!(closed(topic), Closure::Message(_)));
        let exchange = "ACCESS_REFUSED - write access to exchange 'my-topic' in vhost '/' refused for user 'u'";
        assert!(matches!(closed(exchange), Closure::Exchange(_)));
    }
}
