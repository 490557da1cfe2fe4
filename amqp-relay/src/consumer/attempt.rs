//! One attempt: inbox rows, handler and outgoing messages in one transaction.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use amends::CLAIM_CHECK_HEADER;
use amends_postgres::{Inbox, Inserted, Received};
use tracing::Instrument;

use super::handler::HandlerError;
use super::{Inner, telemetry};
use crate::Incoming;

/// What became of a message whose transaction is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    Duplicate,
    Rejected(String),
}

const NOT_INTACT: &str = "the handler returned `Ok`, but its transaction cannot be committed: a statement in it had failed, \
    or the handler ended it; return the errors of statements, or put those that may fail behind a savepoint, and leave the commit \
    to the consumer";

/// Handles messages in one transaction; a verdict for each. An error is about all of them.
///
/// It runs in a task of its own: a transaction is never cancelled in the middle of its commit.
pub(super) async fn attempt(
    consumer: &Arc<Inner>,
    messages: &Arc<[Incoming]>,
    number: u32,
) -> Result<Vec<Verdict>, HandlerError> {
    let span = telemetry::process_span(&consumer.name, &consumer.queue.name, messages, number);
    let (consumer, messages) = (Arc::clone(consumer), Arc::clone(messages));
    let attempt = async move {
        let _timed = telemetry::Timed::start(&consumer.name, messages.len());
        let handled = transaction(&consumer, &messages).await;
        if let Err(error) = &handled {
            telemetry::failed(error);
        }
        handled
    };
    match tokio::spawn(attempt.instrument(span)).await {
        Ok(handled) => handled,
        Err(died) => Err(HandlerError::retry(match died.try_into_panic() {
            Ok(panic) => format!("the handler panicked: {}", panic_text(&*panic)),
            Err(cancelled) => cancelled.to_string(),
        })),
    }
}

async fn transaction(consumer: &Inner, messages: &[Incoming]) -> Result<Vec<Verdict>, HandlerError> {
    // What fails here fails for every message.
    let away = |error: sqlx::Error| HandlerError::Unavailable(Box::new(error));
    let mut tx = Inbox::begin(&consumer.pool, consumer.settings.idle).await.map_err(away)?;
    let received: Vec<Received<'_>> = messages.iter().map(received).collect();
    let inserted = Inbox::insert(&mut tx, &consumer.name, &received).await.map_err(away)?;
    let verdicts = messages.iter().zip(&inserted).map(|(message, inserted)| match inserted {
        Inserted::New => Verdict::Done,
        Inserted::Copy => Verdict::Duplicate,
        Inserted::Another => Verdict::Rejected(format!(
            "a message with the id {} was handled before, and was another: its type or its payload differs",
            message.id
        )),
    });
    let verdicts: Vec<Verdict> = verdicts.collect();
    let is_new = |verdict: &&Verdict| **verdict == Verdict::Done;
    let new = verdicts.iter().filter(is_new).count();
    if new == 0 {
        tx.rollback().await.map_err(away)?;
        return Ok(verdicts);
    }
    // Its inbox row must not be written: a dead letter that cannot be sent yet would be taken for a copy.
    let mut news = messages.iter().zip(&verdicts).filter(|(_, verdict)| is_new(verdict)).map(|(message, _)| message);
    let refused = news.clone().find_map(|message| too_old(consumer, message));
    let handled = if let Some(reason) = refused {
        Err(HandlerError::Reject(reason))
    } else if new == messages.len() {
        consumer.work.work(&mut tx, messages).await
    } else {
        let news: Vec<Incoming> = news.by_ref().cloned().collect();
        consumer.work.work(&mut tx, &news).await
    };
    let handled = match handled {
        Ok(()) if !Inbox::is_intact(&mut tx).await? => Err(HandlerError::retry(NOT_INTACT)),
        handled => handled,
    };
    match handled {
        Ok(()) => tx.commit().await.map(|()| verdicts).map_err(HandlerError::from),
        Err(error) => {
            if let Err(gone) = tx.rollback().await {
                tracing::debug!(%gone, "the session is gone, and the transaction with it");
            }
            Err(error)
        }
    }
}

/// A payload that is kept elsewhere is known by its claim check.
fn received(message: &Incoming) -> Received<'_> {
    let claim = message.headers.get(CLAIM_CHECK_HEADER).filter(|_| message.payload.is_empty());
    let payload = claim.map_or(message.payload.as_slice(), |claim| claim.as_bytes());
    Received { id: &message.id, name: &message.name, payload }
}

/// Why nobody can tell any more whether a message was handled before.
fn too_old(consumer: &Inner, message: &Incoming) -> Option<String> {
    let sent = message.sent_at.filter(|_| !consumer.settings.accept_older)?;
    let age = SystemTime::now().duration_since(sent.into()).unwrap_or_default();
    (age > consumer.settings.window).then(|| {
        format!(
            "it was sent {} ago, and whether it was handled is remembered for {} only; `accept_older` handles it all the same",
            spoken(age),
            spoken(consumer.settings.window)
        )
    })
}

fn spoken(span: Duration) -> String {
    let hours = span.as_secs() / 3600;
    if hours >= 48 { format!("{} days", hours / 24) } else { format!("{} s", span.as_secs()) }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_kept_elsewhere_is_known_by_its_claim_check() {
        let message = |payload: &[u8], claim: &str| Incoming {
            headers: [(CLAIM_CHECK_HEADER.to_owned(), claim.to_owned())].into(),
            payload: payload.into(),
            ..Incoming::default()
        };
        assert_eq!(received(&message(b"", "sha256:a")).payload, b"sha256:a");
        assert_eq!(received(&message(b"{}", "sha256:a")).payload, b"{}");
        assert_eq!(received(&Incoming { payload: b"{}".into(), ..Incoming::default() }).payload, b"{}");
    }
}
