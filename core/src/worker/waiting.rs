//! Steps that begin something and wait for the answer: what is begun, and what the answer says.

use chrono::{DateTime, Utc};

use crate::definition::{Definition, Step, StepKind};
use crate::event::{Answer, Cause, Event, ParkReason};
use crate::machine::{Attempt, Node, Phase};
use crate::retry::LONGEST_PAUSE;
use crate::saga::{Begin, Data, Steps};
use crate::state::{Forward, State, Undo, Waiting, item_name};
use crate::store::{Priority, StepTransaction};
use crate::worker::attempt::{Finished, body_kind, contain_now};
use crate::worker::failure::Tried;
use crate::{CORRELATION_HEADER, Correlation, IDEMPOTENCY_HEADER, SagaId};

/// The saga that asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) saga: SagaId,
    pub(crate) priority: Priority,
    pub(crate) trace: Option<&'a str>,
}

/// Whether it begins something and then waits for the answer. To undo a child is to ask it, which takes a while.
pub(crate) fn is_begun(step: &Step, phase: Phase) -> bool {
    let kind = body_kind(step, phase);
    kind.waits() && !(kind == StepKind::Child && phase == Phase::Undo)
}

/// Begins: what is sent or started goes into the append that says so.
pub(crate) fn begin<T: StepTransaction>(
    steps: &dyn Steps<T>,
    asker: Asker<'_>,
    data: Data,
    attempt: Attempt,
    phase: Phase,
    now: DateTime<Utc>,
) -> Finished<T> {
    let node = attempt.node;
    let definition = std::sync::Arc::clone(&data.definition);
    let step = &definition.steps[node.step];
    let (name, undo) = (item_name(&step.name, node.item), phase == Phase::Undo);
    let begun = match contain_now(|| steps.begin(node.step, undo, data)) {
        Ok(begun) => begun,
        Err(problem) => {
            let tried = Tried { step, phase, attempt: attempt.number, since: attempt.since };
            return Finished::event(node, phase, tried.event(name, Err(problem), now).0);
        }
    };
    let timeout = match &step.compensation {
        Some(compensation) if undo => compensation.timeout,
        _ => step.timeout,
    };
    let within = (timeout < LONGEST_PAUSE).then_some(timeout);
    let (mut outbox, mut starts) = (Vec::new(), Vec::new());
    match begun {
        Begin::Message(mut message) => {
            let correlation = Correlation { saga: asker.saga, step: name.clone(), undo, attempt: attempt.number };
            let key = if undo { "/undo" } else { "" };
            message.headers.insert(IDEMPOTENCY_HEADER.to_owned(), format!("{}/{name}{key}", asker.saga));
            message.headers.insert(CORRELATION_HEADER.to_owned(), correlation.to_string());
            if let Some(trace) = asker.trace {
                message.headers.entry("traceparent".to_owned()).or_insert_with(|| trace.to_owned());
            }
            outbox.push(message);
        }
        Begin::Listen => {}
        saga @ Begin::Saga(_) => starts.extend(saga.child_of(asker.saga, asker.priority)),
    }
    let child = starts.first().map(|saga| saga.id);
    let event = Event::Begun { step: name, undo, attempt: attempt.number, within, child };
    Finished { node, phase, event, outbox, starts, tx: None }
}

/// Takes the answer that has come.
pub(crate) fn accept<T: StepTransaction>(
    steps: &dyn Steps<T>,
    definition: &Definition,
    state: &State,
    node: Node,
    phase: Phase,
    now: DateTime<Utc>,
) -> Option<Finished<T>> {
    let step = &definition.steps[node.step];
    let record = state.record(&step.name, node.item)?;
    let ((Phase::Undo, _, Undo::Waiting(waiting)) | (Phase::Forward, Forward::Waiting(waiting), _)) =
        (phase, &record.forward, &record.undo)
    else {
        return None;
    };
    let event = answered(steps, step, node, phase, waiting, now)?;
    Some(Finished::event(node, phase, event))
}

fn answered<T: StepTransaction>(
    steps: &dyn Steps<T>,
    step: &Step,
    node: Node,
    phase: Phase,
    waiting: &Waiting,
    now: DateTime<Utc>,
) -> Option<Event> {
    let name = item_name(&step.name, node.item);
    let tried = Tried { step, phase, attempt: waiting.attempt, since: waiting.since };
    Some(match (phase, waiting.answer.clone()?) {
        (Phase::Undo, Answer::Done(_)) => Event::Compensated { step: name },
        (Phase::Undo, Answer::Rejected(rejection)) => {
            let error = format!("it was refused: {} {}", rejection.code, rejection.message);
            tried.failed(name, Cause::Error, &error, now)
        }
        (_, Answer::Rejected(rejection)) => Event::Rejected { step: name, attempt: waiting.attempt, rejection },
        (_, Answer::Done(output)) => match contain_now(|| steps.accept(node.step, &output)) {
            Ok(()) => Event::Succeeded { step: name, output },
            Err(problem) => {
                let error = problem.text();
                if step.kind == StepKind::Signal {
                    Event::SignalRefused { step: name, error: crate::sanitize(&error) }
                } else {
                    tried.failed(name, Cause::Data, &format!("the reply cannot be read: {error}"), now)
                }
            }
        },
    })
}

/// Makes up what a step would have returned that is newer than the saga. The same code would fail again in the same way, so
/// that an operator is asked at once.
pub(crate) fn upcast<T: StepTransaction>(steps: &dyn Steps<T>, data: Data) -> Event {
    let (definition, step) = (std::sync::Arc::clone(&data.definition), data.node.step);
    let name = definition.steps[step].name.to_string();
    match contain_now(|| steps.upcast(step, data)) {
        Ok(output) => Event::Upcast { step: name, output },
        Err(problem) => upcast_stuck(&definition, name, &problem.text()),
    }
}

/// The step itself keeps no record of it: it would look as if it had begun.
pub(crate) fn upcast_stuck(definition: &Definition, step: String, error: &str) -> Event {
    let reason = ParkReason::UpcastStuck { step, error: crate::sanitize(error) };
    let fingerprint = reason.fingerprint(&definition.name, error);
    Event::Parked { reason, fingerprint }
}

/// Whether it must be decided on anew once somebody else has moved the saga, since it was no answer of the world's.
pub(crate) fn is_moot_after_conflict(event: &Event) -> bool {
    matches!(event, Event::Begun { .. } | Event::Upcast { .. } | Event::SignalRefused { .. } | Event::Parked { .. })
}
