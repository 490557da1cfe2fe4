//! The store in memory and PostgreSQL are asked the same questions, at random, and must give the same answers.
//!
//! `AMENDS_SEED` asks other questions, `AMENDS_SEQUENCES` more of them.
#![allow(clippy::unwrap_used, missing_docs)]

mod answer;
#[path = "../support/backend.rs"]
mod backend;
mod cast;
mod op;
mod perform;

use std::fmt::Write;

use amends::testing::conformance::Backend;
use amends::{MemoryStore, MessageId};
use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use backend::Here;
use cast::Cast;
use op::Op;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn both_stores_give_the_same_answers() {
    let seed = setting("AMENDS_SEED", 7);
    let config = Config {
        cases: setting("AMENDS_SEQUENCES", 120) as u32,
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let postgres = runtime.block_on(Here::open());
    let store = postgres.connect();

    let result = runner.run(&vec(op::any(), 8..48), |ops| {
        runtime.block_on(async {
            let cast = Cast::new();
            let memory = MemoryStore::new();
            let mut expected = perform::all(&memory, &memory, &cast, &ops).await;
            expected.push(format!("{:?}", memory.published().iter().map(|sent| sent.id).collect::<Vec<_>>()));
            let mut answers = perform::all(&postgres, &store, &cast, &ops).await;
            answers.push(format!("{:?}", published(&postgres, cast.name(0)).await));
            compare(&ops, &expected, &answers)
        })
    });

    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, ops)) => panic!("seed {seed}: {why}\n\nin the sequence\n{}", lines(&ops)),
        Err(error) => panic!("seed {seed}: {error}"),
    }
}

/// The messages of this sequence.
async fn published(postgres: &Here, topic: &str) -> Vec<MessageId> {
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar("select id from amends.outbox where topic = $1 order by seq")
        .bind(topic)
        .fetch_all(postgres.0.pool())
        .await
        .unwrap();
    ids.into_iter().map(MessageId).collect()
}

fn compare(ops: &[Op], expected: &[String], answers: &[String]) -> Result<(), TestCaseError> {
    for (number, (memory, postgres)) in expected.iter().zip(answers).enumerate() {
        if memory != postgres {
            let asked = ops.get(number).map_or("what was left at the end".to_owned(), |op| format!("{number}: {op:?}"));
            // What is left at the end has many lines; the first that differs says most.
            let mut lines = memory.lines().zip(postgres.lines());
            let (memory, postgres) = lines.find(|(memory, postgres)| memory != postgres).unwrap_or((memory, postgres));
            let why = format!("{asked}\n\nin memory:  {memory}\nPostgreSQL: {postgres}");
            return Err(TestCaseError::fail(why));
        }
    }
    Ok(())
}

fn lines(ops: &[Op]) -> String {
    ops.iter().enumerate().fold(String::new(), |mut text, (number, op)| {
        let _ = writeln!(text, "  {number}: {op:?}");
        text
    })
}
