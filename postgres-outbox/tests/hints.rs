//! Relays and workers hear of what other processes commit, soon after the commit and not before.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use amends::store::BellListener;
use amends::{
    Answer, Call, Json, Message, OutboxMessage, Request, SagaId, Sagas, Signal, StepResult, Store, WorkerOptions, saga,
};
use amends_postgres::testing::TestDatabase;
use amends_postgres::{Hints, Outbox, PgStore, deliver_reply};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;
use sqlx::{Connection, PgConnection, PgPool};
use support::until;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "thing.happened")]
struct Happened {
    number: i64,
}

struct Approval;

#[saga(name = "approval", version = 1, input = i64)]
impl Approval {
    #[step(signal)]
    fn approved(&self) -> Signal<bool> {
        Signal::wait()
    }

    #[step(request, pivot)]
    fn asked(&self, input: &i64, approved: &bool) -> Request<Happened, Happened> {
        Request::new(Happened { number: if *approved { *input } else { 0 } })
    }
}

/// Far longer than a test takes.
const POLL: Duration = Duration::from_mins(10);
/// A hint takes milliseconds; a worker with this poll would sweep first after ten seconds.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_worker_that_hardly_polls_hears_of_a_start_a_signal_and_a_reply_in_another_process() {
    if !Other::is_here() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let database = TestDatabase::create().await;
            let pool = database.pool();
            let options = WorkerOptions { poll: POLL, lease: POLL, ..WorkerOptions::default() };
            let store = PgStore::new(pool.clone());
            let hints = Hints::of(pool);
            let sagas = Sagas::builder(store).worker(options).register(Approval).build().unwrap();
            let (shutdown, worker) = (CancellationToken::new(), sagas.clone());
            let worker = tokio::spawn({
                let shutdown = shutdown.clone();
                async move { worker.run(shutdown).await }
            });
            reliable(&mut hints.sagas()).await;
            until(pool, "select exists (select from amends.worker)").await;

            let mut other = Other::spawn(
                "a_worker_that_hardly_polls_hears_of_a_start_a_signal_and_a_reply_in_another_process",
                &database,
            );
            other.does("start");
            soon(pool, "select exists (select from amends.saga where owner is null and wake_at is null)").await;
            other.does("signal");
            soon(pool, "select exists (select from amends.outbox)").await;
            other.does("reply");
            soon(pool, "select bool_and(status = 'completed') from amends.saga").await;
            shutdown.cancel();
            worker.await.unwrap().unwrap();
        });
    }
}

#[tokio::test]
async fn a_publish_is_told_after_the_commit_and_not_before() {
    let database = TestDatabase::create().await;
    let hints = Hints::of(database.pool());
    // From now on it takes no longer to tell than to ask.
    reliable(&mut hints.outbox()).await;
    let mut listener = listener(database.pool()).await;
    let mut tx = database.pool().begin().await.unwrap();
    Outbox::publish(&mut tx, &Happened { number: 1 }).await.unwrap();
    assert!(timeout(Duration::from_millis(20), listener.recv()).await.is_err(), "told before the commit");
    tx.commit().await.unwrap();
    let heard = timeout(SOON, listener.recv()).await.expect("told after the commit").unwrap();
    assert_eq!(heard.channel(), "amends_outbox");
}

#[tokio::test]
async fn what_is_rolled_back_is_never_told_and_not_asked_after_for_ever() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let store = PgStore::new(pool.clone());
    reliable(&mut Hints::of(pool).outbox()).await;
    let mut listener = listener(pool).await;
    let mut tx = pool.begin().await.unwrap();
    Outbox::publish(&mut tx, &Happened { number: 1 }).await.unwrap();
    let saga = amends::store::NewSaga::new(&support::definition("never"), Json::null());
    store.start_in(&mut tx, saga).await.unwrap();
    tx.rollback().await.unwrap();
    assert!(timeout(Duration::from_millis(500), listener.recv()).await.is_err(), "told of what never happened");
    let before = probes(pool).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(probes(pool).await, before, "nobody asks any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_publishes_at_once_are_told_by_few_hints() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let _hints = Hints::of(pool);
    let mut listener = listener(pool).await;
    let began = Instant::now();
    let writers: Vec<_> = (0..10)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut conn = pool.acquire().await.unwrap();
                for number in 0..100 {
                    Outbox::publish(&mut conn, &Happened { number }).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut told = 0;
    while timeout(Duration::from_millis(300), listener.recv()).await.is_ok() {
        told += 1;
    }
    let most = began.elapsed().as_millis() / 5 + 2;
    assert!((1..=most.min(500)).contains(&told), "{told} hints in {:?}", began.elapsed());
}

#[tokio::test]
async fn messages_of_a_group_commit_are_told_too() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let mut listener = listener(database.pool()).await;
    let saga = amends::store::NewSaga::new(&support::definition("loud"), Json::null());
    let id = store.start(saga, None).await.unwrap().id();
    let heard = timeout(SOON, listener.recv()).await.expect("of the start").unwrap();
    assert_eq!(heard.channel(), "amends_saga");
    let outbox = vec![OutboxMessage::new(&Happened { number: 1 }).unwrap()];
    let append = amends::store::Append::new(id, 1, amends::WorkerId::new(), 0, Vec::new());
    store.append(amends::store::Append { outbox, ..append }).await.unwrap();
    let heard = timeout(SOON, listener.recv()).await.expect("of the message").unwrap();
    assert_eq!(heard.channel(), "amends_outbox");
}

#[tokio::test]
async fn a_listener_whose_connection_is_killed_is_made_anew() {
    let database = TestDatabase::create().await;
    let hints = Hints::of(database.pool());
    let mut bell = hints.outbox();
    reliable(&mut bell).await;
    let killed: i64 = sqlx::query_scalar(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity
         where datname = current_database() and application_name = 'amends hints'",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    assert_eq!(killed, 2, "one that listens and one that tells");
    timeout(SOON, async {
        while bell.is_reliable() {
            bell.rung().await;
        }
    })
    .await
    .expect("who listens is told");
    reliable(&mut bell).await;
    while timeout(Duration::from_millis(50), bell.rung()).await.is_ok() {}
    sqlx::query("select pg_notify('amends_outbox', 'another process')").execute(database.pool()).await.unwrap();
    timeout(SOON, bell.rung()).await.expect("it hears again");
}

#[tokio::test]
async fn hints_of_one_database_are_not_those_of_another() {
    let (one, other) = (TestDatabase::create().await, TestDatabase::create().await);
    let (hints, others) = (Hints::of(one.pool()), Hints::of(other.pool()));
    let (mut bell, mut others) = (hints.outbox(), others.outbox());
    reliable(&mut bell).await;
    reliable(&mut others).await;
    for bell in [&mut bell, &mut others] {
        while timeout(Duration::from_millis(50), bell.rung()).await.is_ok() {}
    }
    let mut conn = one.pool().acquire().await.unwrap();
    Outbox::publish(&mut conn, &Happened { number: 1 }).await.unwrap();
    timeout(SOON, bell.rung()).await.expect("in this process, too");
    assert!(timeout(Duration::from_millis(200), others.rung()).await.is_err());
}

struct Later;

#[saga(name = "later", version = 1, input = i64)]
impl Later {
    #[step(call, compensate = none, delay = "2s")]
    async fn wait(&self, _call: &Call, input: &i64) -> StepResult<i64> {
        Ok(*input)
    }
}

#[tokio::test]
async fn a_worker_that_hardly_polls_looks_when_what_it_let_go_of_is_due() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let options = WorkerOptions { poll: POLL, lease: POLL, ..WorkerOptions::default() };
    let store = PgStore::new(pool.clone());
    let sagas = Sagas::builder(store).worker(options).register(Later).build().unwrap();
    let (shutdown, worker) = (CancellationToken::new(), sagas.clone());
    let worker = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { worker.run(shutdown).await }
    });
    reliable(&mut Hints::of(pool).sagas()).await;
    sagas.start_now(Later::unkeyed(), &7).await.unwrap();
    soon(pool, "select exists (select from amends.saga where owner is null and wake_at > now())").await;
    soon(pool, "select bool_and(status = 'completed') from amends.saga").await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_worker_asks_little() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let hints = Hints::of(pool);
    let sagas = Sagas::builder(PgStore::new(pool.clone())).register(Approval).build().unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { sagas.run(shutdown).await }
    });
    reliable(&mut hints.sagas()).await;
    // To start costs more, and the server itself looks at a new database.
    let mut asked = f64::INFINITY;
    for _ in 0..5 {
        asked = asked.min(support::transactions_a_minute(&database, Duration::from_secs(6)).await);
        if asked < 200.0 {
            break;
        }
    }
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    eprintln!("an idle worker asks {asked:.0} times a minute");
    assert!(asked < 200.0, "{asked} a minute; README says 140");
}

async fn listener(pool: &PgPool) -> PgListener {
    let mut listener = PgListener::connect_with(pool).await.unwrap();
    listener.listen_all(["amends_outbox", "amends_saga"]).await.unwrap();
    listener
}

async fn reliable(bell: &mut BellListener) {
    timeout(SOON * 2, async {
        while !bell.is_reliable() {
            bell.rung().await;
        }
    })
    .await
    .expect("the listener is up");
}

async fn soon(pool: &PgPool, condition: &'static str) {
    timeout(SOON, until(pool, condition)).await.unwrap_or_else(|_| panic!("not soon: {condition}"));
}

/// When a connection for hints was last used.
async fn probes(pool: &PgPool) -> Vec<Option<chrono::DateTime<chrono::Utc>>> {
    sqlx::query_scalar(
        "select state_change from pg_stat_activity
         where datname = current_database() and application_name = 'amends hints' order by pid",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Another process, which does what it is told to by the lines that it reads.
struct Other {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

const OTHER: &str = "AMENDS_TEST_OTHER";

impl Other {
    fn spawn(test: &str, database: &TestDatabase) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(OTHER, database.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    fn does(&mut self, what: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        let mut line = String::new();
        while line.trim() != format!("did {what}") {
            line.clear();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the other process ended before it did `{what}`");
        }
    }

    /// In the other process: obeys until nobody speaks any more.
    fn is_here() -> bool {
        let Ok(url) = std::env::var(OTHER) else { return false };
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let pool = PgPool::connect(&url).await.unwrap();
            let sagas = Sagas::builder(PgStore::new(pool.clone())).register(Approval).build().unwrap();
            let mut saga = None;
            for line in std::io::stdin().lines().map(Result::unwrap) {
                obey(&line, &pool, &sagas, &mut saga).await;
                println!("\ndid {line}");
            }
        });
        true
    }
}

async fn obey(what: &str, pool: &PgPool, sagas: &Sagas<PgStore>, saga: &mut Option<SagaId>) {
    let mut conn: PgConnection = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
    match (what, *saga) {
        ("start", _) => {
            let mut tx = conn.begin().await.unwrap();
            *saga = Some(sagas.start(&mut tx, Approval::unkeyed(), &7).await.unwrap().id());
            tx.commit().await.unwrap();
        }
        ("signal", Some(saga)) => sagas.signal(saga, Approval::APPROVED, &true).await.unwrap(),
        ("reply", Some(saga)) => {
            let mut tx = conn.begin().await.unwrap();
            let answer = Answer::Done(Json::encode(&Happened { number: 8 }).unwrap());
            deliver_reply(&mut tx, saga, "asked", false, 1, &answer, Uuid::new_v4()).await.unwrap();
            tx.commit().await.unwrap();
        }
        other => panic!("no idea how to do {other:?}"),
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
