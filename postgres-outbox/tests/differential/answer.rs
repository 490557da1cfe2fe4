//! Answers as texts that can be compared: without times, and in an order where there is none.

use amends::store::{Appended, Loaded, Started};
use amends::{Error, SagaId, StoreError};

pub(crate) fn started(answer: &Result<Started, Error>) -> String {
    match answer {
        Ok(started) => format!("{started:?}"),
        Err(Error::Store(error)) => store_error(error),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn appended(answer: &Result<Appended, StoreError>) -> String {
    match answer {
        Ok(Appended::Done(_)) => "done".into(),
        Ok(Appended::Conflict) => "conflict".into(),
        Err(error) => store_error(error),
    }
}

pub(crate) fn plain<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => store_error(&error),
    }
}

/// What the engine would do about it; the text is each store's own.
pub(crate) fn store_error(error: &StoreError) -> String {
    match error {
        StoreError::Unavailable(_) => "unavailable".into(),
        // A step is told of a write that cannot be stored as of a commit that failed.
        StoreError::Refused(_) | StoreError::CommitFailed(_) => "refused".into(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn sorted(answer: Result<Vec<SagaId>, StoreError>) -> String {
    plain(answer.map(|mut sagas| {
        sagas.sort();
        sagas
    }))
}

/// Sagas whose order is not specified.
pub(crate) fn set(answer: Result<Vec<Loaded>, StoreError>) -> String {
    plain(answer.map(|mut loaded| {
        loaded.sort_by_key(|loaded| loaded.id);
        loaded.iter().map(self::loaded).collect::<Vec<_>>()
    }))
}

pub(crate) fn list(answer: Result<Vec<Loaded>, StoreError>) -> String {
    plain(answer.map(|loaded| loaded.iter().map(self::loaded).collect::<Vec<_>>()))
}

pub(crate) fn loaded(it: &Loaded) -> String {
    let journal: Vec<_> = it.journal.iter().map(|row| (row.saga == it.id, row.seq, &row.events)).collect();
    assert!(it.started_at <= it.now && it.journal.is_sorted_by_key(|row| row.at), "{it:#?}");
    format!(
        "{} {} v{} {} {:?} owner {:?} {:?} parent {:?} lock {:?} input {:?} trace {:?} {journal:?}",
        it.id,
        it.name,
        it.version,
        it.fingerprint,
        it.status,
        it.owner,
        it.priority,
        it.parent,
        it.lock,
        it.input,
        it.trace
    )
}
