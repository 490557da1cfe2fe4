//! The span and the metrics of one attempt, named as OpenTelemetry's conventions for messaging say.

use std::time::Instant;

use tracing::Span;
use tracing::field::Empty;

use super::handler::HandlerError;
use crate::Incoming;
use crate::telemetry::{IN_FLIGHT, PROCESS_SECONDS};

/// The span in which messages are handled. Of one message it is a child of the trace that published it; so what the handler
/// publishes belongs to that trace too.
pub(super) fn process_span(consumer: &str, queue: &str, messages: &[Incoming], attempt: u32) -> Span {
    let span = tracing::info_span!(
        "process",
        otel.name = %format_args!("process {queue}"),
        otel.kind = "consumer",
        otel.status_code = Empty,
        error.type = Empty,
        messaging.system = "rabbitmq",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = queue,
        messaging.consumer.group.name = consumer,
        messaging.rabbitmq.destination.routing_key = Empty,
        messaging.message.id = Empty,
        messaging.message.conversation_id = Empty,
        messaging.message.body.size = Empty,
        messaging.batch.message_count = Empty,
        message.name = Empty,
        attempt,
    );
    let [message] = messages else {
        span.record("messaging.batch.message_count", messages.len());
        return span;
    };
    span.record("messaging.message.id", &message.id);
    span.record("messaging.message.body.size", message.payload.len());
    span.record("messaging.rabbitmq.destination.routing_key", &message.routing_key);
    span.record("message.name", &message.name);
    if let Some(correlation) = &message.correlation {
        span.record("messaging.message.conversation_id", correlation);
    }
    amends::trace::set_parent_from(&span, &message.headers);
    span
}

/// Marks the current span as failed.
pub(super) fn failed(error: &HandlerError) {
    let kind = match error {
        HandlerError::Reject(_) => "rejected",
        HandlerError::Unavailable(_) => "unavailable",
        HandlerError::Retry(_) => "failed",
    };
    let span = Span::current();
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}

/// Counts messages as in flight, and measures how long they are, also if the handler panics.
pub(super) struct Timed {
    consumer: String,
    messages: f64,
    since: Instant,
}

impl Timed {
    pub(super) fn start(consumer: &str, messages: usize) -> Self {
        let timed = Self { consumer: consumer.to_owned(), messages: messages as f64, since: Instant::now() };
        metrics::gauge!(IN_FLIGHT, "consumer" => timed.consumer.clone()).increment(timed.messages);
        timed
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        metrics::gauge!(IN_FLIGHT, "consumer" => self.consumer.clone()).decrement(self.messages);
        metrics::histogram!(PROCESS_SECONDS, "consumer" => self.consumer.clone())
            .record(self.since.elapsed().as_secs_f64());
    }
}
