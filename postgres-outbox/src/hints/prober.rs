//! Finds out what has been committed, and tells.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pending::Due;
use super::{ECHO, News, OUTBOX, SAGAS, State};

/// The database may take so long to answer; then the connection is made anew.
const PATIENCE: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Until the last [`Hints`](super::Hints) of the database is gone.
pub(super) async fn run(state: Arc<State>) {
    let mut conn = None;
    let mut pause = SHORTEST_PAUSE;
    loop {
        let next = state.pending().next();
        tokio::select! {
            () = state.closed.cancelled() => return,
            () = state.armed.notified() => continue,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        let error = match timeout(PATIENCE, tell(&state, &mut conn)).await {
            Ok(Ok(())) => {
                pause = SHORTEST_PAUSE;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        tracing::debug!(%error, retry_in = ?pause, "cannot give hints now; what was written is found by polling");
        sleep(pause).await;
        state.pending().clear();
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What failed is forgotten: it is a hint. A connection that was given up in the middle of a statement is not used again.
async fn tell(state: &State, conn: &mut Option<PgConnection>) -> Result<(), sqlx::Error> {
    let mut connected = match conn.take() {
        Some(connected) => connected,
        None => connect(state).await?,
    };
    let Due { xids, committed: mut news, echo } = state.pending().take_due(Instant::now());
    if !xids.is_empty() {
        for (xid, committed) in ended(&mut connected, &xids).await? {
            let of = state.pending().ended(xid);
            if committed {
                news.add(of);
            }
        }
    }
    state.ring(news);
    if news.is_some() || echo {
        notify(&mut connected, state, news, echo).await?;
    }
    if news.is_some() {
        state.pending().told(Instant::now());
    }
    *conn = Some(connected);
    Ok(())
}

async fn connect(state: &State) -> Result<PgConnection, sqlx::Error> {
    let mut conn = PgConnection::connect_with(&state.options()).await?;
    let database: String = sqlx::query_scalar("select current_database()::text").fetch_one(&mut conn).await?;
    state.pending().keep_only(&database);
    // It is what it was: the address names one database.
    let _ = state.database.set(database);
    Ok(conn)
}

/// Which of these transactions have ended, and whether they have committed. One that has committed is visible to whoever looks
/// now: it counts as in progress until then. So does what lies ahead of all that have ended, which PostgreSQL would call an
/// error: it is of another server, with a database of the same name, or of this one before a failover.
async fn ended(conn: &mut PgConnection, xids: &[i64]) -> Result<Vec<(i64, bool)>, sqlx::Error> {
    sqlx::query_as(
        "select xid, coalesce(status = 'committed', false)
         from (
            select xid, case
                when xid::text::xid8 < pg_snapshot_xmax(pg_current_snapshot()) then pg_xact_status(xid::text::xid8)
                else 'in progress'
            end as status
            from unnest($1::bigint[]) as xid offset 0
         ) as asked
         where status is distinct from 'in progress'",
    )
    .bind(xids)
    .fetch_all(conn)
    .await
}

/// Nobody waits for the disk for the sake of a hint.
async fn notify(conn: &mut PgConnection, state: &State, news: News, echo: bool) -> Result<(), sqlx::Error> {
    let told = [(news.outbox, OUTBOX), (news.sagas, SAGAS), (echo, ECHO)];
    let channels: Vec<&str> = told.into_iter().filter_map(|(is_told, channel)| is_told.then_some(channel)).collect();
    sqlx::query(
        "select set_config('synchronous_commit', 'off', true), pg_notify(channel, $2) from unnest($1::text[]) as channel",
    )
    .bind(channels)
    .bind(state.origin.to_string())
    .execute(conn)
    .await
    .map(drop)
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn a_transaction_of_another_server_is_no_error_and_hides_no_other() {
        let database = TestDatabase::create().await;
        let own = "select pg_current_xact_id()::text::bigint";
        let own: i64 = sqlx::query_scalar(own).fetch_one(database.pool()).await.unwrap();
        let mut conn = database.pool().acquire().await.unwrap();

        assert_eq!(ended(&mut conn, &[own + 1_000_000_000, own]).await.unwrap(), [(own, true)]);
    }
}
