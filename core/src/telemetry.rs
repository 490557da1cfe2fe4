//! The names of all spans and metrics, in one place.

use std::time::Duration;

use tracing::Span;

use crate::event::Outcome;
use crate::{MessageId, SagaId, trace};

/// Attempts at steps and compensations, by `saga`, `step`, `phase` and `result`.
pub const ATTEMPTS: &str = "amends_attempts_total";
/// Seconds that an attempt took, by `saga` and `step`.
pub const ATTEMPT_SECONDS: &str = "amends_attempt_seconds";
/// Sagas that ended here, by `saga` and `outcome`.
pub const ENDED: &str = "amends_sagas_ended_total";
/// Sagas parked here, by `saga`.
pub const PARKED: &str = "amends_sagas_parked_total";
/// Sagas taken over from dead workers.
pub const ADOPTED: &str = "amends_sagas_adopted_total";
/// Appends that lost against another writer.
pub const CONFLICTS: &str = "amends_append_conflicts_total";

/// The span of one attempt; a child of the trace that started the saga.
pub(crate) fn attempt_span(
    saga: SagaId,
    name: &str,
    step: &str,
    phase: &'static str,
    attempt: u32,
    parent: Option<&str>,
) -> Span {
    let span = tracing::info_span!("saga.step", saga = %saga, saga.name = name, step, phase, attempt);
    trace::set_parent(&span, parent);
    span
}

/// The span in which a message is made, as the messaging conventions of OpenTelemetry have it: the parent of those in which it
/// is published and processed.
pub(crate) fn create_span(name: &'static str, id: MessageId) -> Span {
    tracing::info_span!(
        "message.create",
        otel.name = %format_args!("create {name}"),
        otel.kind = "producer",
        messaging.system = "rabbitmq",
        messaging.operation.name = "create",
        messaging.operation.type = "create",
        messaging.destination.name = name,
        messaging.message.id = %id,
    )
}

pub(crate) fn attempt(saga: &str, step: &str, phase: &'static str, result: &'static str, took: Duration) {
    metrics::counter!(ATTEMPTS, "saga" => saga.to_owned(), "step" => step.to_owned(), "phase" => phase, "result" => result)
        .increment(1);
    metrics::histogram!(ATTEMPT_SECONDS, "saga" => saga.to_owned(), "step" => step.to_owned())
        .record(took.as_secs_f64());
}

pub(crate) fn ended(saga: &str, outcome: Outcome) {
    let outcome = match outcome {
        Outcome::Completed => "completed",
        Outcome::Compensated => "compensated",
    };
    metrics::counter!(ENDED, "saga" => saga.to_owned(), "outcome" => outcome).increment(1);
}

pub(crate) fn parked(saga: &str) {
    metrics::counter!(PARKED, "saga" => saga.to_owned()).increment(1);
}
