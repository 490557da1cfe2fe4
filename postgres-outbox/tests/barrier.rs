//! The barrier on real PostgreSQL: whatever comes twice, late or in the wrong order, in two transactions at once.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use amends::Json;
use amends_postgres::testing::TestDatabase;
use amends_postgres::{Barrier, Entry, Passage};
use sqlx::{Executor, PgConnection, PgPool};
use tokio::time::sleep;

const HERE: Barrier = Barrier::new("here");

#[derive(Debug, Clone, Copy, PartialEq)]
enum Command {
    Act,
    Undo,
    /// It comes, and its handler dies before the commit.
    ActAndDie,
    UndoAndDie,
}

const COMMANDS: [Command; 4] = [Command::Act, Command::Undo, Command::ActAndDie, Command::UndoAndDie];

/// The effect: how often it was done, and undone.
async fn handle(tx: &mut PgConnection, key: &str, undo: bool) {
    let passage = if undo { HERE.undo(tx, key).await } else { HERE.act(tx, key).await }.unwrap();
    if passage.is_first() {
        let column = if undo { "undone" } else { "done" };
        let statement = format!(
            "insert into effect (key, {column}) values ('{key}', 1)
            on conflict (key) do update set {column} = effect.{column} + 1"
        );
        tx.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
}

async fn deliver(pool: &PgPool, key: &str, command: Command) {
    let mut tx = pool.begin().await.unwrap();
    handle(&mut tx, key, matches!(command, Command::Undo | Command::UndoAndDie)).await;
    match command {
        Command::Act | Command::Undo => tx.commit().await.unwrap(),
        Command::ActAndDie | Command::UndoAndDie => tx.rollback().await.unwrap(),
    }
}

async fn effects(pool: &PgPool, key: &str) -> (i32, i32) {
    let row = sqlx::query_as("select done, undone from effect where key = $1").bind(key).fetch_optional(pool);
    row.await.unwrap().unwrap_or_default()
}

async fn database() -> TestDatabase {
    let database = TestDatabase::create().await;
    let table = "create table effect (key text primary key, done integer not null default 0, undone integer not null default 0)";
    database.pool().execute(table).await.unwrap();
    database
}

/// What must have happened after these commands, whatever their order and however many copies there were.
fn expected(history: &[Command]) -> (i32, i32) {
    let first = history.iter().find(|command| matches!(command, Command::Act | Command::Undo));
    let undone = history.contains(&Command::Undo);
    match first {
        Some(Command::Act) => (1, i32::from(undone)),
        _ => (0, 0),
    }
}

#[tokio::test]
async fn in_every_order_of_up_to_five_commands_each_takes_effect_once_or_not_at_all() {
    let database = database().await;
    let mut histories: Vec<Vec<Command>> = vec![Vec::new()];
    for length in 0..5 {
        let longer = histories.iter().filter(|history| history.len() == length).cloned().collect::<Vec<_>>();
        histories.extend(
            longer.into_iter().flat_map(|history| {
                COMMANDS.map(|command| history.iter().copied().chain([command]).collect::<Vec<_>>())
            }),
        );
    }
    for (number, history) in histories.iter().enumerate() {
        let key = format!("key {number}");
        for command in history {
            deliver(database.pool(), &key, *command).await;
        }
        assert_eq!(effects(database.pool(), &key).await, expected(history), "{history:?}");
    }
}

/// Two handlers at once: the second waits for the first one's transaction, however that ends.
#[tokio::test]
async fn two_at_once_wait_for_each_other() {
    let database = database().await;
    for (number, (first, second)) in COMMANDS.iter().flat_map(|a| COMMANDS.map(|b| (*a, b))).enumerate() {
        let key = format!("key {number}");
        deliver(database.pool(), &key, if number % 2 == 0 { Command::ActAndDie } else { Command::Act }).await;
        let mut tx = database.pool().begin().await.unwrap();
        handle(&mut tx, &key, matches!(first, Command::Undo | Command::UndoAndDie)).await;
        let other = tokio::spawn({
            let (pool, key) = (database.pool().clone(), key.clone());
            async move { deliver(&pool, &key, second).await }
        });
        until_one_waits(database.pool()).await;
        assert!(!other.is_finished(), "it waits");
        match first {
            Command::Act | Command::Undo => tx.commit().await.unwrap(),
            Command::ActAndDie | Command::UndoAndDie => tx.rollback().await.unwrap(),
        }
        other.await.unwrap();
        let before = (number % 2 == 1).then_some(Command::Act);
        let history: Vec<_> = before.into_iter().chain([first, second]).collect();
        assert_eq!(effects(database.pool(), &key).await, expected(&history), "{history:?}");
    }
}

async fn until_one_waits(pool: &PgPool) {
    let waits =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
    while !sqlx::query_scalar::<_, bool>(waits).fetch_one(pool).await.unwrap() {
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn whoever_asks_again_is_answered_the_same() {
    let database = database().await;
    let mut conn = database.pool().acquire().await.unwrap();
    let answer = Json::encode(&7).unwrap();

    assert_eq!(HERE.act(&mut conn, "a").await.unwrap(), Passage::First);
    assert_eq!(HERE.act(&mut conn, "a").await.unwrap(), Passage::Again(None));
    HERE.record(&mut conn, "a", &answer).await.unwrap();
    assert_eq!(HERE.act(&mut conn, "a").await.unwrap(), Passage::Again(Some(answer)));
    assert_eq!(Barrier::new("elsewhere").act(&mut conn, "a").await.unwrap(), Passage::First);
}

#[tokio::test]
async fn what_was_refused_is_answered_the_same_and_has_nothing_to_undo() {
    let database = database().await;
    let mut conn = database.pool().acquire().await.unwrap();
    let no = Json::encode("no").unwrap();
    assert!(HERE.act(&mut conn, "a").await.unwrap().is_first());
    HERE.refuse(&mut conn, "a", &no).await.unwrap();

    assert_eq!(HERE.act(&mut conn, "a").await.unwrap(), Passage::Again(Some(no)));
    assert_eq!(HERE.undo(&mut conn, "a").await.unwrap(), Passage::Nothing);
    assert_eq!(HERE.act(&mut conn, "a").await.unwrap(), Passage::Nothing, "its undoing leaves a tombstone");
}

/// As a handler of an HTTP request does it: who pays more than ten is refused. `None` is *gone*.
async fn pay(pool: &PgPool, key: &str, amount: u32) -> Option<Result<u32, String>> {
    let mut tx = pool.begin().await.unwrap();
    let answer = match HERE.enter::<Result<u32, String>>(&mut tx, key).await.unwrap() {
        Entry::Answered(answer) => Some(answer),
        Entry::Undone => None,
        Entry::First(turn) if amount > 10 => Some(turn.refused(&mut tx, Err("too much".to_owned())).await.unwrap()),
        Entry::First(turn) => {
            tx.execute("insert into effect (key, done) values ('pay', 1)").await.unwrap();
            Some(turn.done(&mut tx, Ok(amount)).await.unwrap())
        }
    };
    tx.commit().await.unwrap();
    answer
}

#[tokio::test]
async fn a_request_over_http_is_answered_as_it_was_the_first_time_and_never_after_its_undoing() {
    let database = database().await;
    let pool = database.pool();
    for _ in 0..2 {
        assert_eq!(pay(pool, "a", 7).await, Some(Ok(7)));
        assert_eq!(pay(pool, "b", 11).await, Some(Err("too much".to_owned())));
    }
    assert_eq!(pay(pool, "a", 11).await, Some(Ok(7)), "the key says what is asked, not the body");
    assert_eq!(effects(pool, "pay").await, (1, 0));
    let mut conn = pool.acquire().await.unwrap();
    for (key, first) in [("a", true), ("b", false), ("c", false)] {
        assert_eq!(HERE.undo(&mut conn, key).await.unwrap().is_first(), first, "{key}");
        assert_eq!(pay(pool, key, 7).await, None);
    }
}

#[tokio::test]
async fn an_action_that_was_carried_out_without_an_answer_is_answered_only_where_none_is_one() {
    let database = database().await;
    let mut conn = database.pool().acquire().await.unwrap();
    assert!(HERE.act(&mut conn, "a").await.unwrap().is_first());
    assert!(matches!(HERE.enter::<()>(&mut conn, "a").await.unwrap(), Entry::Answered(())));
    let error = HERE.enter::<u32>(&mut conn, "a").await.unwrap_err();
    assert!(matches!(error, sqlx::Error::Decode(_)), "{error}");
}

#[tokio::test]
async fn only_what_is_old_is_forgotten() {
    let database = database().await;
    let mut conn = database.pool().acquire().await.unwrap();
    for key in ["old", "new"] {
        HERE.act(&mut conn, key).await.unwrap();
    }
    conn.execute("update amends.barrier set since = since - interval '31 days' where key = 'old'").await.unwrap();

    assert_eq!(Barrier::prune(database.pool(), Duration::from_hours(30 * 24)).await.unwrap(), 1);
    assert_eq!(Barrier::prune(database.pool(), Duration::from_hours(30 * 24)).await.unwrap(), 0);
    assert!(HERE.act(&mut conn, "old").await.unwrap().is_first());
    assert!(!HERE.act(&mut conn, "new").await.unwrap().is_first());
}
