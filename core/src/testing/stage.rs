//! What stays the same in all schedules: the sagas' code, the participants, the world.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::Environment;
use super::report::Seen;
use crate::definition::{Definition, StepKind};
use crate::machine::{Node, Phase};
use crate::saga::{Data, Saga, Steps};
use crate::state::State;
use crate::store::{NewSaga, StepTransaction};
use crate::worker::attempt::body_kind;
use crate::{Answer, Encoding, IDEMPOTENCY_HEADER, Json, Message, OutboxMessage, Rejection, SagaId};

/// The code of one kind of saga.
pub(super) struct Kind<T: StepTransaction> {
    pub(super) definition: Arc<Definition>,
    make: MakeSteps<T>,
}

/// Makes the bodies anew, as each worker process does: nothing but the journal outlives a step.
pub(super) type MakeSteps<T> = Box<dyn Fn() -> Arc<dyn Steps<T>> + Send>;

/// Answers the requests of one type; `None` leaves one without an answer.
pub(super) type Participant = Box<dyn Fn(&OutboxMessage) -> Option<Answer> + Send>;

pub(super) struct Stage<E: Environment> {
    pub(super) env: E,
    pub(super) kinds: Vec<Kind<E::Tx>>,
    pub(super) participants: BTreeMap<String, Participant>,
    /// Bodies are run twice once, to see that they do the same.
    pub(super) repeats: bool,
    /// A moment that was seen before is not explored again.
    pub(super) prunes: bool,
    pub(super) repeated: BTreeSet<(usize, usize, u8)>,
    pub(super) seen: Seen,
}

/// One that reads requests of type `M`.
pub(super) fn participant<M: Message, R: Serialize>(
    answer: impl Fn(&M, &str) -> Option<Result<R, Rejection>> + Send + 'static,
) -> Participant {
    Box::new(move |request| {
        let message = M::Encoding::decode(&request.payload).expect("a request has its own type");
        let key = request.headers.get(IDEMPOTENCY_HEADER).map_or("", String::as_str);
        answer(&message, key).map(|answer| match answer {
            Ok(reply) => Answer::Done(Json::encode(&reply).expect("a reply can be stored")),
            Err(rejection) => Answer::Rejected(rejection),
        })
    })
}

impl<T: StepTransaction> Kind<T> {
    pub(super) fn new(definition: Definition, make: MakeSteps<T>) -> Self {
        Self { definition: Arc::new(definition), make }
    }

    pub(super) fn make(&self) -> Arc<dyn Steps<T>> {
        (self.make)()
    }

    pub(super) fn is_of(&self, name: &str, version: u32) -> bool {
        self.definition.name == name && self.definition.version == version
    }

    pub(super) fn data(&self, state: &Arc<State>, node: Node) -> Data {
        Data { definition: Arc::clone(&self.definition), state: Arc::clone(state), node }
    }

    /// The kind of body that an attempt runs.
    pub(super) fn body(&self, step: usize, phase: Phase) -> StepKind {
        body_kind(&self.definition.steps[step], phase)
    }
}

/// The saga under test, which has the same id in every run.
///
/// # Panics
/// Panics if its input cannot be stored.
pub(super) fn root<G: Saga>(input: &G::Input) -> NewSaga {
    let input = Json::encode(input).expect("the input can be stored");
    NewSaga { id: SagaId(Uuid::from_u128(1)), ..NewSaga::new(G::DEFINITION, input) }
}

impl<E: Environment> Stage<E> {
    /// One without sagas. With `checks`, bodies are run twice once, and no moment is explored again.
    pub(super) fn new(env: E, checks: bool) -> Self {
        Self {
            env,
            kinds: Vec::new(),
            participants: BTreeMap::new(),
            repeats: checks,
            prunes: checks,
            repeated: BTreeSet::new(),
            seen: Seen::default(),
        }
    }
}

impl<T: StepTransaction> fmt::Debug for Kind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.definition.name).finish()
    }
}
