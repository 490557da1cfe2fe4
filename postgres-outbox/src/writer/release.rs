//! Releases: sagas that have to wait are given back without a word in their journals, many in one statement.

use std::time::Duration;

use amends::{SagaId, WorkerId};
use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::columns::millis;
use crate::writer::Statement;

pub(crate) struct Releases;

#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) worker: WorkerId,
    pub(crate) saga: SagaId,
    /// `None` is never.
    pub(crate) wake_in: Option<Duration>,
}

/// A saga that was written to from outside meanwhile stays due. Heads are locked in the order of their ids.
const RELEASE: &str = "
    with batch as (
        select * from unnest($1::uuid[], $2::uuid[], $3::bigint[]) as b(id, worker, wake_ms)
    ), locked as (
        select s.id from amends.saga s join batch b on b.id = s.id and b.worker = s.owner order by s.id for update of s
    )
    update amends.saga s set owner = null,
        wake_at = least(s.wake_at, clock_timestamp() + b.wake_ms * interval '1 millisecond')
    from batch b join locked on locked.id = b.id
    where s.id = b.id and s.owner = b.worker";

#[async_trait]
impl Statement for Releases {
    type Op = Release;
    type Answer = ();

    fn bytes(_: &Release) -> usize {
        0
    }

    fn alone(_: &Release) -> Option<SagaId> {
        None
    }

    async fn perform(&self, conn: &mut PgConnection, releases: &[&Release]) -> Result<Vec<()>, sqlx::Error> {
        crate::hook::before("release");
        let wake_ms = |release: &&Release| release.wake_in.map(millis);
        sqlx::query(RELEASE)
            .bind(releases.iter().map(|release| release.saga.0).collect::<Vec<Uuid>>())
            .bind(releases.iter().map(|release| release.worker.0).collect::<Vec<Uuid>>())
            .bind(releases.iter().map(wake_ms).collect::<Vec<_>>())
            .execute(conn)
            .await?;
        Ok(vec![(); releases.len()])
    }
}
