//! Starts outside of any application transaction, many in one statement.

use amends::store::NewSaga;
use amends::{SagaId, WorkerId};
use async_trait::async_trait;
use sqlx::PgConnection;

use crate::writer::Statement;

/// They never share a statement with appends: a key that waits for another transaction must not hold up a step.
pub(crate) struct Starts;

#[async_trait]
impl Statement for Starts {
    type Op = (NewSaga, Option<WorkerId>);
    /// Whether it is new; otherwise its key is taken.
    type Answer = bool;

    fn bytes((saga, _): &Self::Op) -> usize {
        saga.input.as_str().len()
    }

    fn alone(_: &Self::Op) -> Option<SagaId> {
        None
    }

    async fn perform(&self, conn: &mut PgConnection, ops: &[&Self::Op]) -> Result<Vec<bool>, sqlx::Error> {
        crate::hook::before("start");
        let started = crate::start::all(conn, ops).await?;
        Ok(ops.iter().map(|(saga, _)| started.contains_key(&saga.id.0)).collect())
    }
}
