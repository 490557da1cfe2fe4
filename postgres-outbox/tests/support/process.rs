//! A worker in a process of its own, which a test can stop at any statement, kill, suspend and continue.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use amends_postgres::testing::TestDatabase;
use amends_postgres::{PgStore, set_hook};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

use super::{Order, place, sagas, until};

/// Set for the child: its [`Job`].
const CHILD: &str = "AMENDS_TEST_CHILD";

/// The k-th time that a statement of this name is about to be sent, counted from 1.
pub type Point = (String, usize);

/// What the child does: places the order and works until its saga has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    url: String,
    saga: String,
    order: Order,
    freeze_at: Option<Point>,
    slow: Option<String>,
}

impl Job {
    pub fn new(database: &TestDatabase, saga: &str, order: &Order) -> Self {
        let (url, saga) = (database.url().to_owned(), saga.to_owned());
        Self { url, saga, order: order.clone(), freeze_at: None, slow: None }
    }

    pub fn frozen_at(mut self, point: &Point) -> Self {
        self.freeze_at = Some(point.clone());
        self
    }

    pub fn slow_at(mut self, step: &str) -> Self {
        self.slow = Some(step.to_owned());
        self
    }
}

/// Runs `test` of this very test binary again, as the child.
pub fn spawn(test: &str, job: &Job) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(CHILD, serde_json::to_string(job).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what the child says until a line that begins with one of these words, and returns the line.
pub fn wait_for(child: &mut Child, words: &[&str]) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| words.iter().any(|word| line.starts_with(word)));
    line.unwrap_or_else(|| panic!("the child ended without saying any of {words:?}"))
}

/// Sends a signal such as `STOP` or `CONT`.
pub fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// In the child: does the job and says which statements that took. In the parent it does nothing and returns `false`.
pub fn is_child() -> bool {
    let Ok(job) = std::env::var(CHILD) else { return false };
    let job: Job = serde_json::from_str(&job).unwrap();
    FREEZE_AT.lock().unwrap().clone_from(&job.freeze_at);
    set_hook(count);
    // One thread, so that a frozen statement freezes the whole process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work(&job));
    let seen = SEEN.lock().unwrap().take();
    println!("\ndone {}", serde_json::to_string(&seen.unwrap()).unwrap());
    true
}

async fn work(job: &Job) {
    let pool = PgPoolOptions::new().max_connections(4).connect(&job.url).await.unwrap();
    place(&PgStore::new(pool.clone()), &job.saga, &job.order).await;
    let sagas = sagas(&pool, std::slice::from_ref(&job.saga), job.slow.clone());
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { sagas.run(shutdown).await }
    });
    let named = pool.connect_options().as_ref().clone().application_name(&job.saga);
    let watcher = PgPoolOptions::new().max_connections(1).connect_with(named).await.unwrap();
    let ended =
        "select count(*) = 0 from amends.saga where name = current_setting('application_name') and ended_at is null";
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
