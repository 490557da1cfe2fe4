//! How a saga ended, with what it returned.

use crate::event::{Outcome, Rejection};
use crate::saga::Saga;
use crate::store::Loaded;
use crate::{Error, Json, StepRef, list};
use serde::de::DeserializeOwned;

/// How a saga ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended<T> {
    /// Every step succeeded; this is what the last one returned.
    Completed(T),
    /// Everything that may have happened was undone.
    Compensated(Compensated),
}

/// Why a saga was undone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compensated {
    /// The step that was rejected or gave up; none if the saga was cancelled.
    pub step: Option<String>,
    /// Why it was rejected.
    pub rejection: Option<Rejection>,
    /// The last error of a step that gave up, or the reason for which the saga was cancelled.
    pub error: Option<String>,
}

impl<T> Ended<T> {
    /// What a completed saga returned.
    pub fn completed(self) -> Option<T> {
        match self {
            Self::Completed(output) => Some(output),
            Self::Compensated(_) => None,
        }
    }

    pub(super) fn of<G: Saga<Output = T>>(loaded: &Loaded) -> Result<Self, Error>
    where
        T: DeserializeOwned,
    {
        let (definition, state) = (G::DEFINITION, loaded.fold());
        if loaded.name != definition.name {
            return Err(Error::NoSuchSaga(loaded.id));
        }
        let failed = |source| Error::Json { what: format!("what saga `{}` returned", loaded.name), source };
        if state.ended == Some(Outcome::Completed) {
            let last = definition.steps.len() - 1;
            let output = list::output(definition, &state, last, None).map_err(failed)?.unwrap_or_else(Json::null);
            return output.decode().map(Self::Completed).map_err(failed);
        }
        let (rejection, gave_up) = (state.rejection(), state.gave_up());
        let step = rejection.map(|(step, _)| step).or_else(|| gave_up.map(|(step, _)| step));
        Ok(Self::Compensated(Compensated {
            step: step.map(str::to_owned),
            rejection: rejection.map(|(_, rejection)| rejection.clone()),
            error: gave_up.and_then(|(_, error)| error.map(str::to_owned)).or(state.cancel_reason.clone()),
        }))
    }
}

impl Loaded {
    /// What a step returned, if it has.
    ///
    /// # Errors
    /// [`Error::Json`] if it is recorded with another type.
    pub fn output<T: DeserializeOwned>(&self, step: StepRef<T>) -> Result<Option<T>, Error> {
        let state = self.fold();
        let output = state.output(step.name(), None).map(Json::decode).transpose();
        output.map_err(|source| Error::Json { what: format!("the output of step `{step}`"), source })
    }
}
