//! Starting a saga: business keys, and the application's own transaction.

use std::borrow::Cow;
use std::time::Duration;

use amends::event::Outcome;
use amends::memory::MemoryTx;
use amends::{
    Capability, Data, Definition, Ended, Error, Json, Saga, SagaId, Sagas, Started, Step, StepFuture, StepKind, Steps,
};

use crate::stage::{Stage, work};

/// Says hello; started with a name.
struct Greet;

impl Saga for Greet {
    type Input = String;
    type Output = String;
    const DEFINITION: &'static Definition = &Definition::new(Cow::Borrowed("greet"), 1, Cow::Borrowed(STEPS));
}

const STEPS: &[Step] = &[Step::new(Cow::Borrowed("hello"), StepKind::Call)];

impl Steps<MemoryTx> for Greet {
    fn execute<'a>(&'a self, _: usize, _: Capability<'a, MemoryTx>, data: Data) -> StepFuture<'a> {
        Box::pin(async move { Ok(Json::encode(&format!("hello, {}", data.input::<String>()?)).unwrap()) })
    }

    fn compensate<'a>(&'a self, _: usize, _: Capability<'a, MemoryTx>, _: Data) -> StepFuture<'a> {
        unreachable!("nothing to undo")
    }
}

fn greeter(stage: &Stage) -> Sagas<amends::MemoryStore> {
    Sagas::builder(stage.store.clone()).register(Greet).build().unwrap()
}

async fn exists(stage: &Stage, saga: SagaId) -> bool {
    use amends::Store;
    stage.store.load(saga).await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_saga_started_beside_a_worker_runs_at_once() {
    let stage = Stage::new();
    let worker = work(greeter(&stage));
    let first = worker.sagas.start_now(Greet::unkeyed(), &"Ann".to_owned()).await.unwrap().id();
    assert_eq!(worker.sagas.outcome::<Greet>(first).await.unwrap(), Ended::Completed("hello, Ann".to_owned()));

    let began = tokio::time::Instant::now();
    let saga = worker.sagas.start_now(Greet::unkeyed(), &"Bob".to_owned()).await.unwrap().id();

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert!(began.elapsed() < Duration::from_millis(100), "without waiting for a poll");
    assert_eq!(stage.state(saga).await.output("hello", None).unwrap().as_str(), r#""hello, Bob""#);
}

#[tokio::test(start_paused = true)]
async fn the_same_key_gives_the_same_saga_and_another_input_is_a_conflict() {
    let stage = Stage::new();
    let sagas = greeter(&stage);
    let (ann, bob) = ("Ann".to_owned(), "Bob".to_owned());

    let first = sagas.start_now(Greet::key(7), &ann).await.unwrap();
    let again = sagas.start_now(Greet::key(7), &ann).await.unwrap();
    let conflict = sagas.start_now(Greet::key(7), &bob).await.unwrap_err();

    assert_eq!(again, Started::Existing(first.id()));
    assert!(matches!(conflict, Error::KeyConflict { existing, .. } if existing == first.id()));
    assert!(matches!(sagas.start_now(Greet::key(8), &bob).await.unwrap(), Started::New(_)));
}

#[tokio::test(start_paused = true)]
async fn a_saga_started_in_a_transaction_runs_once_that_commits() {
    let stage = Stage::new();
    let worker = work(greeter(&stage));
    let mut conn = stage.store.begin();
    let saga = worker.sagas.start(&mut conn, Greet::unkeyed(), &"Ann".to_owned()).await.unwrap().id();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!exists(&stage, saga).await, "not before");

    conn.commit().unwrap();

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
}

#[tokio::test(start_paused = true)]
async fn of_two_transactions_with_one_key_the_second_starts_nothing() {
    let stage = Stage::new();
    let sagas = greeter(&stage);
    let (mut one, mut two) = (stage.store.begin(), stage.store.begin());
    let ann = "Ann".to_owned();
    let first = sagas.start(&mut one, Greet::key(7), &ann).await.unwrap().id();
    let second = sagas.start(&mut two, Greet::key(7), &ann).await.unwrap().id();
    let third = sagas.start(&mut two, Greet::unkeyed(), &ann).await.unwrap().id();
    one.commit().unwrap();

    let error = two.commit().unwrap_err();

    assert!(matches!(error, Error::KeyConflict { existing, .. } if existing == first));
    assert!(!exists(&stage, second).await && !exists(&stage, third).await);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_is_refused_at_the_start() {
    let stage = Stage::new();
    let sagas = greeter(&stage);

    let input = sagas.start_now(Greet::unkeyed(), &"\0".to_owned()).await;
    let key = sagas.start_now(Greet::key("\0"), &"Ann".to_owned()).await;

    assert!(matches!(input, Err(Error::Json { .. })));
    assert!(matches!(key, Err(Error::Json { .. })));
}
