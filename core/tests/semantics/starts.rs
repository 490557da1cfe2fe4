//! Keys, priorities, and those who wait for the end.

use std::borrow::Cow;

use amends::store::{NewSaga, Priority, Store};
use amends::{
    Capability, Data, Definition, Ended, Error, Saga, SagaId, Started, Step, StepFuture, StepKind, Steps, WorkerOptions,
};
use futures_util::future::join_all;

use super::Tx;
use super::script::{Script, json, notes};
use super::stage::{Stage, Worker, until};

struct Double;

impl Saga for Double {
    type Input = u32;
    type Output = u32;
    const DEFINITION: &'static Definition = &Definition::new(Cow::Borrowed("double"), 1, Cow::Borrowed(STEPS));
}

const STEPS: &[Step] = &[Step::new(Cow::Borrowed("double"), StepKind::Tx)];

impl Steps<Tx> for Double {
    fn execute<'a>(&'a self, _: usize, _: Capability<'a, Tx>, data: Data) -> StepFuture<'a> {
        Box::pin(async move { Ok(json(&(2 * data.input::<u32>()?))) })
    }

    fn compensate<'a>(&'a self, _: usize, _: Capability<'a, Tx>, _: Data) -> StepFuture<'a> {
        unreachable!("nothing to undo")
    }
}

#[tokio::test]
async fn the_same_key_and_another_input_are_a_conflict() {
    let stage = Stage::new().await;
    let sagas = stage.builder().register(Double).build().unwrap();
    let first = sagas.start_now(Double::key("order-7"), &1).await.unwrap();

    let conflict = sagas.start_now(Double::key("order-7"), &2).await.unwrap_err();

    assert!(matches!(conflict, Error::KeyConflict { existing, .. } if existing == first.id()), "{conflict}");
    assert!(matches!(sagas.start_now(Double::key("order-8"), &2).await.unwrap(), Started::New(_)));
}

#[tokio::test]
async fn the_same_key_finds_the_saga_also_when_it_has_ended() {
    let stage = Stage::new().await;
    let worker = Worker::of(stage.builder().register(Double).build().unwrap());
    let first = worker.sagas.start_now(Double::key("order-7"), &1).await.unwrap();
    stage.completes(first.id()).await;

    let again = worker.sagas.start_now(Double::key("order-7"), &1).await.unwrap();

    assert_eq!(again, Started::Existing(first.id()));
}

#[tokio::test]
async fn sagas_of_a_higher_priority_come_first() {
    let stage = Stage::new().await;
    let order = super::script::Log::default();
    let script = Script::new().tx("a", notes(&order, Data::input));
    for (name, priority) in [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)] {
        let saga = NewSaga { priority, ..NewSaga::new(&script.definition, json(name)) };
        stage.store.start(saga, None).await.unwrap();
    }

    let one_by_one = WorkerOptions { concurrency: 1, batch: 1, ..WorkerOptions::default() };
    let builder = stage.builder().worker(one_by_one).register_dynamic(script.definition.clone(), script.clone());
    let _worker = Worker::of(builder.build().unwrap());

    until(|| order.lines().len() == 3).await;
    assert_eq!(order.lines(), ["high", "normal", "low"]);
}

#[tokio::test]
async fn two_hundred_who_wait_for_two_hundred_ends_are_all_told() {
    let stage = Stage::new().await;
    let worker = Worker::of(stage.builder().register(Double).build().unwrap());
    let sagas = &worker.sagas;

    let outcomes = join_all((0..200).map(|input| async move {
        let saga = sagas.start_now(Double::unkeyed(), &input).await.unwrap().id();
        sagas.outcome::<Double>(saga).await.unwrap()
    }));

    let expected: Vec<_> = (0..200).map(|input| Ended::Completed(2 * input)).collect();
    assert_eq!(tokio::time::timeout(std::time::Duration::from_secs(30), outcomes).await.unwrap(), expected);
}

#[tokio::test]
async fn two_hundred_who_wait_for_one_end_are_all_told() {
    let stage = Stage::new().await;
    let sagas = stage.builder().register(Double).build().unwrap();
    let saga = sagas.start_now(Double::unkeyed(), &21).await.unwrap().id();
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let sagas = sagas.clone();
            tokio::spawn(async move { sagas.outcome::<Double>(saga).await.unwrap() })
        })
        .collect();

    let _worker = Worker::of(sagas);

    for outcome in waiting {
        assert_eq!(outcome.await.unwrap(), Ended::Completed(42));
    }
}

#[tokio::test]
async fn who_waits_for_a_saga_that_never_was_is_told_so() {
    let stage = Stage::new().await;
    let sagas = stage.builder().register(Double).build().unwrap();
    let nobody = SagaId::new();

    let error = sagas.outcome::<Double>(nobody).await.unwrap_err();

    assert!(matches!(error, Error::NoSuchSaga(saga) if saga == nobody));
}
