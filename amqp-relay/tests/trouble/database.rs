//! The database is in trouble: its credentials change, its tables are away, its connections fall silent.

use std::fs;
use std::time::Duration;

use amends_relay::{Topology, Trouble};
use sqlx::postgres::PgPoolOptions;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::block_in_place;
use url::Url;

use crate::binary::Binary;
use crate::support::{World, amqp_url, assert_order_per_key, eventually, publish, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_of_the_database_is_taken_from_its_file_without_a_restart() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    Topology { queues: vec![queue.clone()], ..Topology::default() }.ensure(&World::url()).await.unwrap();
    let role = format!("amends_test_{}", uuid::Uuid::new_v4().simple());
    let pool = world.pool().clone();
    let run_sql = async |sql: String| sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    run_sql(format!(
        "do $$ begin execute format('create role {role} login password ''old'' in role %I', current_user); end $$"
    ))
    .await;
    let url = world.database.url().to_owned();
    let (scheme, rest) = url.split_once("://").unwrap();
    let place = rest.split_once('@').unwrap().1;
    let file = std::env::temp_dir().join(&role);
    fs::write(&file, format!("{scheme}://{role}:old@{place}")).unwrap();
    let binary =
        block_in_place(|| Binary::start(&world, &amqp_url(), &["--database-url-file", file.to_str().unwrap()]));
    publish(&pool, "thing.happened", "k", 1..=3).await;
    let mut got = world.drain(&queue, 3).await;

    run_sql(format!("alter role {role} password 'new'")).await;
    run_sql(format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'")).await;
    publish(&pool, "thing.happened", "k", 4..=6).await;
    fs::write(&file, format!("{scheme}://{role}:new@{place}")).unwrap();

    // The cursor may not have moved yet behind the first ones; then they come again.
    world.drain_into(&mut got, &queue, 6).await;
    assert_order_per_key(&got);
    until(
        &pool,
        &format!("select exists (select from pg_stat_activity where usename = '{role}' and application_name = 'amends hints')"),
    )
    .await;
    drop(binary);
    fs::remove_file(file).unwrap();
    run_sql(format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'; drop role {role}"
    ))
    .await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_fails_again_and_again_says_so_and_comes_back_less_and_less_often() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    publish(world.pool(), "thing.happened", "k", 1..=3).await;
    world.drain(&queue, 3).await;
    let pool = world.pool();
    sqlx::raw_sql("alter table amends.outbox rename to away; create table since as select clock_timestamp() as at")
        .execute(pool)
        .await
        .unwrap();
    let trouble = || relay.relay.state().trouble();
    eventually(
        "it says which lane fails",
        || matches!(trouble(), Some(Trouble::Failing { lane: 0, reason, .. }) if reason.contains("outbox")),
    )
    .await;
    until(pool, "select clock_timestamp() > at + interval '6 seconds' from since").await;

    let sessions: i64 = sqlx::query_scalar("select epoch from amends.cursor").fetch_one(pool).await.unwrap();
    assert!((3..=15).contains(&sessions), "{sessions} sessions");

    sqlx::query("alter table amends.away rename to outbox").execute(pool).await.unwrap();
    publish(pool, "thing.happened", "k", 4..=6).await;
    world.drain(&queue, 3).await;
    eventually("nothing fails any more", || trouble().is_none()).await;
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_goes_on_though_its_connections_to_the_database_fall_silent() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let way = Way::to(world.database.url()).await;
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(2)).connect(way.url.as_str()).await.unwrap();
    let relay = world.relay_by(&pool, world.options(vec![queue.clone()]));
    publish(world.pool(), "thing.happened", "k", 1..=3).await;
    let mut got = world.drain(&queue, 3).await;

    way.fall_silent();
    publish(world.pool(), "thing.happened", "k", 4..=6).await;

    world.drain_into(&mut got, &queue, 6).await;
    assert_order_per_key(&got);
    relay.stop().await;
    world.clean_up().await;
}

/// A way to the database on which connections can fall silent, as when a host dies or a firewall forgets them: nobody is told.
struct Way {
    url: Url,
    silence: watch::Sender<()>,
}

impl Way {
    async fn to(database: &str) -> Self {
        let mut url = Url::parse(database).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let (silence, _) = watch::channel(());
        let of_each = silence.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(&server).await.unwrap();
                let mut silence = of_each.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        // Both ends stay open.
                        Ok(()) = silence.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { url, silence }
    }

    /// Those that there are; new ones are heard.
    fn fall_silent(&self) {
        self.silence.send_replace(());
    }
}
