//! The store: sagas, journals and workers in PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use amends::store::{Append, Appended, BellListener, Claim, Loaded, NewSaga, Started, Store, WorkerStore};
use amends::{Definition, Error, SagaId, StoreError, WorkerId};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Executor, PgConnection, PgPool};
use uuid::Uuid;

use crate::error::store_error;
use crate::hints::{Hints, News, news};
use crate::tx::StepTx;
use crate::writer::{Appends, GroupCommit, Release, Releases, Starts, Write};
use crate::{bounded, claim, load, lock, schedule, start, workers};

/// Keeps sagas in PostgreSQL. Cheap to clone.
///
/// It opens up to eight connections of its own beside the application's pool, for its group commits and its
/// look-ups, and those of its [`Hints`]; tx steps take theirs from the application's pool.
#[derive(Debug, Clone)]
pub struct PgStore {
    /// The application's own: its hooks, its role and its `search_path` hold for tx steps.
    pool: PgPool,
    /// Ours, with a short `lock_timeout`.
    own: PgPool,
    appends: Arc<GroupCommit<Appends>>,
    starts: Arc<GroupCommit<Starts>>,
    releases: Arc<GroupCommit<Releases>>,
    mark: Arc<claim::Mark>,
    hints: Hints,
}

/// Two writers with batches of up to 256 were the fastest (LIMITS: two writers beat one by half, more do not help).
const APPEND_WRITERS: usize = 2;
const OWN_CONNECTIONS: u32 = 8;

impl PgStore {
    /// Keeps sagas in the database of this pool. Opens its own connections when it first needs them.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime, which its writers run on.
    pub fn new(pool: PgPool) -> Self {
        let own = own_pool(pool.connect_options().as_ref().clone());
        Self {
            appends: GroupCommit::spawn(Appends, own.clone(), APPEND_WRITERS),
            starts: GroupCommit::spawn(Starts, own.clone(), 1),
            releases: GroupCommit::spawn(Releases, own.clone(), 1),
            mark: Arc::default(),
            hints: Hints::of(&pool),
            pool,
            own,
        }
    }

    /// As [`new`](Self::new), after a check that the schema is there and of this version.
    ///
    /// # Errors
    /// Returns [`StoreError::Schema`], which says how to mend it, or [`StoreError::Unavailable`].
    pub async fn connect(pool: PgPool) -> Result<Self, StoreError> {
        crate::schema::check(&pool).await?;
        Ok(Self::new(pool))
    }

    /// Counts for the connections that are made from now on, the application's, ours and those of the [`Hints`]: for a password
    /// that has changed.
    pub fn set_connect_options(&self, options: PgConnectOptions) {
        self.own.set_connect_options(options.clone());
        self.hints.set_connect_options(options.clone());
        self.pool.set_connect_options(options);
    }

    /// The application's pool.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// Sessions that never wait long for a lock: one stopped transaction must not freeze a batch of other sagas.
fn own_pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(OWN_CONNECTIONS)
        .min_connections(0)
        .acquire_timeout(Duration::from_secs(10))
        .after_connect(|conn, _| {
            Box::pin(async move {
                conn.execute(
                    "set application_name = 'amends'; set lock_timeout = '250ms'; set statement_timeout = '30s'; \
                     set idle_in_transaction_session_timeout = '30s'; set jit = off",
                )
                .await
                .map(drop)
            })
        })
        .connect_lazy_with(options)
}

#[async_trait]
impl Store for PgStore {
    type Conn = PgConnection;
    type Tx = StepTx;

    async fn start_in(&self, conn: &mut PgConnection, saga: NewSaga) -> Result<Started, Error> {
        start::in_transaction(conn, saga, None, &self.hints).await
    }

    async fn start(&self, saga: NewSaga, owner: Option<WorkerId>) -> Result<Started, Error> {
        if saga.lock.as_ref().is_some_and(|lock| lock.refuse) {
            return start::alone(&self.own, saga, owner, &self.hints).await;
        }
        if self.starts.submit((saga.clone(), owner)).await? {
            if owner.is_none() {
                self.hints.committed(News::SAGAS);
            }
            return Ok(Started::New(saga.id));
        }
        let mut conn = self.own.acquire().await.map_err(store_error)?;
        start::existing(&mut conn, &saga).await
    }

    async fn append(&self, append: Append) -> Result<Appended, StoreError> {
        let news = news(&append);
        let appended = self.appends.submit(Write { append, new_owner: None }).await?;
        if matches!(appended, Appended::Done(_)) {
            self.hints.committed(news);
        }
        Ok(appended)
    }

    async fn begin(&self) -> Result<StepTx, StoreError> {
        StepTx::begin(&self.pool, self.own.clone(), self.hints.clone()).await
    }

    async fn load(&self, saga: SagaId) -> Result<Option<Loaded>, StoreError> {
        load::one(&self.own, saga).await.map_err(store_error)
    }

    async fn ended(&self, sagas: &[SagaId]) -> Result<Vec<SagaId>, StoreError> {
        load::ended(&self.own, sagas).await.map_err(store_error)
    }

    async fn parked(
        &self,
        fingerprint: Option<Uuid>,
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<SagaId>, StoreError> {
        load::parked(&self.own, fingerprint, after, limit).await.map_err(store_error)
    }

    async fn live(
        &self,
        names: &[String],
        fingerprints: &[Uuid],
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<Vec<Loaded>, StoreError> {
        load::live(&self.own, names, fingerprints, after, limit).await.map_err(store_error)
    }
}

#[async_trait]
impl WorkerStore for PgStore {
    async fn define(&self, definitions: &[&Definition]) -> Result<(), StoreError> {
        workers::define(&self.own, definitions).await.map_err(store_error)?;
        let bounded = definitions.iter().filter(|it| it.concurrency.is_some()).map(|it| it.name.to_string());
        bounded::define(&self.own, &bounded.collect::<Vec<_>>()).await.map_err(store_error)
    }

    async fn register(&self, worker: WorkerId, name: &str, lease: Duration) -> Result<(), StoreError> {
        workers::register(&self.own, worker, name, lease).await.map_err(store_error)
    }

    async fn heartbeat(&self, worker: WorkerId, lease: Duration) -> Result<(), StoreError> {
        let renewed = workers::renew(&self.own, worker, lease).await.map_err(store_error)?;
        if renewed { Ok(()) } else { Err(StoreError::WorkerLost) }
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError> {
        claim::due(&self.own, &claim, &self.mark).await.map_err(store_error)
    }

    async fn adopt(&self, claim: Claim) -> Result<Vec<Loaded>, StoreError> {
        let worker = claim.worker;
        let orphans = workers::orphans(&self.own, &claim).await.map_err(store_error)?;
        let writes = orphans.into_iter().map(|(saga, seq)| async move {
            let appended = self.appends.submit(workers::adoption(worker, saga, seq)).await?;
            Ok::<_, StoreError>(matches!(appended, Appended::Done(_)).then_some(saga))
        });
        let adopted: Vec<_> = try_join_all(writes).await?.into_iter().flatten().collect();
        load::many(&self.own, &adopted).await.map_err(store_error)
    }

    async fn release(&self, worker: WorkerId, sagas: &[(SagaId, Option<Duration>)]) -> Result<(), StoreError> {
        let releases = sagas.iter().map(|&(saga, wake_in)| self.releases.submit(Release { worker, saga, wake_in }));
        try_join_all(releases).await?;
        if sagas.iter().any(|(_, wake_in)| *wake_in == Some(Duration::ZERO)) {
            self.hints.committed(News::SAGAS);
        }
        Ok(())
    }

    fn bell(&self) -> Option<BellListener> {
        Some(self.hints.sagas())
    }

    async fn retire(&self, worker: WorkerId) -> Result<(), StoreError> {
        workers::retire(&self.own, worker).await.map_err(store_error)
    }

    async fn lock(&self, saga: SagaId) -> Result<bool, StoreError> {
        lock::take(&self.own, saga).await.map_err(store_error)
    }

    async fn pass_lock(&self, saga: SagaId) -> Result<(), StoreError> {
        if lock::pass(&self.own, saga).await.map_err(store_error)? {
            self.hints.committed(News::SAGAS);
        }
        Ok(())
    }

    async fn schedule(&self, name: &str, timetable: &str, next: DateTime<Utc>) -> Result<(), StoreError> {
        schedule::set(&self.own, name, timetable, next).await.map_err(store_error)
    }

    async fn overdue(&self, names: &[String]) -> Result<(Vec<(String, DateTime<Utc>)>, DateTime<Utc>), StoreError> {
        schedule::overdue(&self.own, names).await.map_err(store_error)
    }

    async fn start_scheduled(
        &self,
        saga: NewSaga,
        at: DateTime<Utc>,
        next: Option<DateTime<Utc>>,
    ) -> Result<bool, StoreError> {
        schedule::start(&self.own, saga, at, next, &self.hints).await.map_err(|error| match error {
            Error::Store(error) => error,
            other => StoreError::Refused(Box::new(other)),
        })
    }
}
