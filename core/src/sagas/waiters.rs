//! Those who wait for the ends of sagas: one question to the store for all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::store::Store;
use crate::{Error, SagaId};

/// The pauses between two questions grow from the first to the longest, and begin anew with everyone who comes.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(crate) struct Waiters(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    waiting: HashMap<SagaId, Vec<oneshot::Sender<()>>>,
    /// Somebody has come since the last question.
    fresh: bool,
    /// A task asks for all.
    asking: bool,
}

impl Waiters {
    /// Resolves once the saga has ended, or is not there.
    pub(crate) async fn ended<S: Store>(self: &Arc<Self>, store: &Arc<S>, saga: SagaId) -> Result<(), Error> {
        let (sender, ended) = oneshot::channel();
        let must_ask = {
            let mut inner = self.lock();
            inner.waiting.entry(saga).or_default().push(sender);
            inner.fresh = true;
            !std::mem::replace(&mut inner.asking, true)
        };
        if must_ask {
            tokio::spawn(Arc::clone(self).ask(Arc::clone(store)));
        }
        // The task ends only when nobody waits.
        ended.await.map_err(|_| Error::NoSuchSaga(saga))
    }

    async fn ask<S: Store>(self: Arc<Self>, store: Arc<S>) {
        let mut pause = FIRST_PAUSE;
        while let Some(sagas) = self.open() {
            match store.ended(&sagas).await {
                Ok(ended) => self.tell(&ended),
                Err(error) => tracing::warn!(%error, "cannot ask for the ends of sagas; trying again"),
            }
            pause =
                if std::mem::take(&mut self.lock().fresh) { FIRST_PAUSE } else { (pause * 3 / 2).min(LONGEST_PAUSE) };
            sleep(pause).await;
        }
    }

    /// Whom somebody still waits for; `None` ends the asking.
    fn open(&self) -> Option<Vec<SagaId>> {
        let mut inner = self.lock();
        inner.waiting.retain(|_, waiting| {
            waiting.retain(|sender| !sender.is_closed());
            !waiting.is_empty()
        });
        inner.asking = !inner.waiting.is_empty();
        inner.asking.then(|| inner.waiting.keys().copied().collect())
    }

    fn tell(&self, ended: &[SagaId]) {
        let mut inner = self.lock();
        for sender in ended.iter().filter_map(|saga| inner.waiting.remove(saga)).flatten().collect::<Vec<_>>() {
            // Whoever has gone away need not be told.
            let _ = sender.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
