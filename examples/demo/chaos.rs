//! Kills a worker, the active relay and the payment service, and finds out how long each was missed.

use std::fmt;
use std::time::Duration;

use shop::service::Failure;
use sqlx::PgPool;
use tokio::time::sleep;
use uuid::Uuid;

use crate::audit::{Area, Finding};
use crate::customers::Placing;
use crate::fleet::{Fleet, Role};
use crate::progress::Progress;
use crate::world::World;

/// The worker is killed when this share of the orders was placed.
const WORKER_AT: f64 = 0.25;
const RELAY_AT: f64 = 0.45;
const PAYMENTS_AT: f64 = 0.65;
/// How long a killed process stays away.
const AWAY: Duration = Duration::from_secs(2);

/// What was killed, and when; moments are seconds on the servers' clock.
#[derive(Debug, Default)]
pub(crate) struct Chaos {
    worker: Option<WorkerKill>,
    relay: Option<f64>,
    payments: Option<f64>,
}

#[derive(Debug)]
struct WorkerKill {
    at: f64,
    worker: Uuid,
    /// The sagas that it worked on.
    held: Vec<Uuid>,
}

/// How long it took until what a victim had held moved again.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) victim: &'static str,
    what: String,
    seconds: Option<f64>,
}

/// Kills one after the other while orders are placed.
pub(crate) async fn run(
    world: &World,
    fleet: &mut Fleet,
    placing: &Placing,
    progress: &Progress,
) -> Result<Chaos, Failure> {
    until(placing, WORKER_AT).await;
    let worker = kill_worker(world, fleet, progress).await?;
    sleep(AWAY).await;
    fleet.start_one(Role::OrdersA).await?;
    progress.say("orders-a is back");

    until(placing, RELAY_AT).await;
    let relay = kill_relay(world, fleet, progress).await?;

    until(placing, PAYMENTS_AT).await;
    fleet.kill_one(Role::Payments).await;
    let payments = now(&world.payments).await?;
    progress.say("kill -9 payments");
    sleep(AWAY).await;
    fleet.start_one(Role::Payments).await?;
    progress.say("payments is back");
    Ok(Chaos { worker, relay, payments: Some(payments) })
}

async fn until(placing: &Placing, share: f64) {
    while placing.share() < share {
        sleep(Duration::from_millis(20)).await;
    }
}

async fn kill_worker(world: &World, fleet: &mut Fleet, progress: &Progress) -> Result<Option<WorkerKill>, Failure> {
    let Some(pid) = fleet.kill_one(Role::OrdersA).await else { return Ok(None) };
    let at = now(&world.orders).await?;
    let worker: Option<Uuid> = sqlx::query_scalar("select id from amends.worker where name like '%:' || $1")
        .bind(pid.to_string())
        .fetch_optional(&world.orders)
        .await?;
    let Some(worker) = worker else { return Err(format!("no worker is registered for process {pid}").into()) };
    let held: Vec<Uuid> =
        sqlx::query_scalar("select id from amends.saga where owner = $1 and status in ('running', 'compensating')")
            .bind(worker)
            .fetch_all(&world.orders)
            .await?;
    progress.say(&format!("kill -9 orders-a, which held {} sagas", held.len()));
    Ok(Some(WorkerKill { at, worker, held }))
}

async fn kill_relay(world: &World, fleet: &mut Fleet, progress: &Progress) -> Result<Option<f64>, Failure> {
    let owner: Option<String> = sqlx::query_scalar("select owner_name from amends.cursor where lane = 0")
        .fetch_optional(&world.orders)
        .await?
        .flatten();
    let owner = owner.ok_or("no relay is active")?;
    let is_owner = |role: &Role| fleet.pid(*role).is_some_and(|pid| owner.ends_with(&format!(":{pid}")));
    let Some(active) = [Role::RelayA, Role::RelayB].into_iter().find(is_owner) else {
        return Err(format!("the active relay, {owner}, is none of ours").into());
    };
    // A relay that keeps up has nothing half done: killed like this, it has published what its cursor does not know.
    fleet.kill_in_full_swing(active).await;
    progress.say(&format!("kill -9 {}, the active relay, in the middle of a backlog", active.name()));
    Ok(Some(now(&world.orders).await?))
}

async fn now(pool: &PgPool) -> sqlx::Result<f64> {
    sqlx::query_scalar("select extract(epoch from clock_timestamp())::float8").fetch_one(pool).await
}

impl Chaos {
    /// Reads from the ledgers when each victim's work went on.
    pub(crate) async fn recovery(&self, world: &World) -> Result<Vec<Recovery>, Failure> {
        let mut all = Vec::new();
        if let Some(kill) = &self.worker {
            // The last of the sagas that it held to move again.
            let moved: Option<f64> = sqlx::query_scalar(
                "select max(first) from (
                     select extract(epoch from min(at))::float8 as first from amends.journal
                     where saga_id = any($1) and writer <> $2 and at > to_timestamp($3) group by saga_id) moved",
            )
            .bind(&kill.held)
            .bind(kill.worker)
            .bind(kill.at)
            .fetch_one(&world.orders)
            .await?;
            let what = format!("until the last of its {} sagas moved again", kill.held.len());
            all.push(Recovery { victim: "worker", what, seconds: moved.map(|moved| moved - kill.at) });
        }
        if let Some(at) = self.relay {
            let seconds = delivery_after(world, at).await?.map(|delivered| delivered - at);
            let what = "until the standby had delivered the next event".to_owned();
            all.push(Recovery { victim: "relay", what, seconds });
        }
        if let Some(at) = self.payments {
            let charged: Option<f64> = sqlx::query_scalar(
                "select extract(epoch from min(at))::float8 from charge where at > to_timestamp($1)",
            )
            .bind(at)
            .fetch_one(&world.payments)
            .await?;
            let what = format!("until the next charge, {} s of it away", AWAY.as_secs());
            all.push(Recovery { victim: "payments", what, seconds: charged.map(|charged| charged - at) });
        }
        Ok(all)
    }
}

/// When the first event that was published after `moment` was handled.
async fn delivery_after(world: &World, moment: f64) -> sqlx::Result<Option<f64>> {
    let published: Vec<Uuid> = sqlx::query_scalar("select id from amends.outbox where created_at > to_timestamp($1)")
        .bind(moment)
        .fetch_all(&world.orders)
        .await?;
    sqlx::query_scalar("select extract(epoch from min(at))::float8 from received where message_id = any($1)")
        .bind(published)
        .fetch_one(&world.warehouse)
        .await
}

/// The promise: after a fault, everything moves again within this time.
const PROMISED_SECONDS: f64 = 60.0;

/// Whether the promise was kept.
pub(crate) fn audit(recovery: &[Recovery]) -> Finding {
    let late = recovery.iter().filter(|recovery| recovery.seconds.is_some_and(|seconds| seconds > PROMISED_SECONDS));
    Finding {
        area: Area::Recovery,
        claim: "whatever was killed, all moved again within 60 s",
        offenders: late.map(|recovery| format!("{}: {recovery}", recovery.victim)).collect(),
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            Some(seconds) => write!(f, "killed: {seconds:.1} s {}", self.what),
            None => f.write_str("killed: it held nothing that had to go on"),
        }
    }
}
