//! A worker in a process of its own, which a test can stop at any statement, kill, suspend and continue.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use amends_postgres::{PgStore, set_hook};
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

use super::{Order, place, sagas, until};

/// Set for the child: the database, the saga's name, the order, and where to freeze.
const CHILD: &str = "AMENDS_TEST_CHILD";

/// The k-th time that a statement of this name is about to be sent, counted from 1.
pub type Point = (String, usize);

/// Runs `test` of this very test binary again, as a worker that freezes at `point`.
pub fn spawn(test: &str, url: &str, saga: &str, order: &Order, point: Option<&Point>) -> Child {
    let job = serde_json::to_string(&(url, saga, order, point)).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(CHILD, job)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what the child says until a line that begins with one of these words, and returns the line.
pub fn wait_for(child: &mut Child, words: &[&str]) -> String {
    let stdout = child.stdout.take().unwrap();
    let mut lines = BufReader::new(stdout).lines();
    let line = lines.by_ref().map(Result::unwrap).find(|line| words.iter().any(|word| line.starts_with(word)));
    line.unwrap_or_else(|| panic!("the child ended without saying any of {words:?}"))
}

/// In the child: places the order, runs the worker until the saga has ended, says how many statements that took.
/// In the parent it does nothing and returns `false`.
pub fn is_child() -> bool {
    let Ok(job) = std::env::var(CHILD) else { return false };
    let (url, saga, order, point): (String, String, Order, Option<Point>) = serde_json::from_str(&job).unwrap();
    *FREEZE_AT.lock().unwrap() = point;
    set_hook(count);
    // One thread, so that a frozen statement freezes the whole process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work(&url, &saga, &order));
    let seen = SEEN.lock().unwrap().take();
    println!("\ndone {}", serde_json::to_string(&seen.unwrap()).unwrap());
    true
}

async fn work(url: &str, saga: &str, order: &Order) {
    let pool = PgPoolOptions::new().max_connections(4).connect(url).await.unwrap();
    place(&PgStore::new(pool.clone()), saga, order).await;
    let sagas = sagas(&pool, &[saga.to_owned()]);
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn({
        let (sagas, shutdown) = (sagas.clone(), shutdown.clone());
        async move { sagas.run(shutdown).await }
    });
    let ended = "select count(*) = 0 from amends.saga where name = current_setting('application_name') and ended_at is null";
    let watcher = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(pool.connect_options().as_ref().clone().application_name(saga))
        .await
        .unwrap();
    until(&watcher, ended).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

static FREEZE_AT: Mutex<Option<Point>> = Mutex::new(None);
static SEEN: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);

fn count(statement: &'static str) {
    let times = {
        let mut seen = SEEN.lock().unwrap();
        let times = seen.get_or_insert_default().entry(statement.to_owned()).or_default();
        *times += 1;
        *times
    };
    if FREEZE_AT.lock().unwrap().as_ref().is_some_and(|(name, at)| name == statement && *at == times) {
        println!("\nfrozen before {statement} {times}");
        loop {
            std::thread::park();
        }
    }
}
