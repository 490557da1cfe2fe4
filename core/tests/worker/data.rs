//! What a saga stores: outputs, messages, error texts; and what it cannot.

use amends::event::{Cause, Event, Outcome};
use amends::{Json, Message, StepError, StepKind, StepTransaction, reject};
use serde::{Deserialize, Serialize};

use crate::script::{Script, answers, body, calls, fails_first, ok, rejects, writes};
use crate::stage::Stage;

#[derive(Serialize, Deserialize)]
struct Noted(String);

impl Message for Noted {
    const NAME: &'static str = "noted";
    type Encoding = amends::AsJson;
}

fn published(stage: &Stage) -> Vec<String> {
    let payload = |message: amends::OutboxMessage| serde_json::from_slice::<Noted>(&message.payload).unwrap().0;
    stage.store.published().into_iter().map(payload).collect()
}

#[tokio::test(start_paused = true)]
async fn a_transaction_publishes_if_and_only_if_it_succeeds() {
    let publish = |fail: bool| {
        writes(move |tx| {
            tx.publish(&Noted(if fail { "not this" } else { "this" }.into()))?;
            if fail { Err(reject("no")) } else { Ok(Json::null()) }
        })
    };
    let script = Script::new().tx("yes", publish(false)).tx("no", publish(true));
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(published(&stage), ["this"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_publishes_with_the_record_of_its_success_and_only_then() {
    let publish = calls(|call| {
        call.publish(&Noted(format!("attempt {}", call.attempt())))?;
        if call.attempt() == 1 { Err(StepError::retry("again")) } else { Ok(Json::null()) }
    });
    let script = Script::new().call("yes", publish);
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Completed));
    assert_eq!(published(&stage), ["attempt 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_compensation_publishes_too() {
    let undo = calls(|call| {
        call.publish(&Noted("undone".into()))?;
        Ok(Json::null())
    });
    let script = Script::new().call("a", ok()).undo(StepKind::Call, undo).tx("no", rejects());
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(published(&stage), ["undone"]);
}

/// The step gives up at once, with an error that says why, and the next saga goes on.
async fn gives_up_alone(output: impl Fn() -> Result<Json, StepError> + Send + Sync + Clone + 'static, says: &str) {
    let bad = Script::new().call("odd", answers(output)).undo(StepKind::Call, ok());
    let good = Script::new().named("good").call("fine", fails_first(1, ok()));
    let stage = Stage::new();
    let sagas = stage.with(&bad).register_dynamic(good.definition.clone(), good.clone()).build().unwrap();
    let _worker = crate::stage::work(sagas);

    let (odd, fine) = (stage.start(&bad).await, stage.start(&good).await);

    assert_eq!(stage.outcome(odd).await, Some(Outcome::Compensated));
    assert_eq!(stage.outcome(fine).await, Some(Outcome::Completed));
    assert_eq!(bad.log.lines(), ["odd", "undo odd"], "trying again cannot help");
    let events = stage.events(odd).await;
    let Event::Failed { failure, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!((failure.cause, failure.retry_in), (Cause::Data, None));
    assert!(failure.error.contains(says), "{}", failure.error);
}

#[tokio::test(start_paused = true)]
async fn a_nul_in_an_output_harms_that_saga_alone() {
    gives_up_alone(|| Json::encode("a\0b").map_err(StepError::Data), "NUL").await;
}

#[tokio::test(start_paused = true)]
async fn a_megabyte_too_much_in_an_output_harms_that_saga_alone() {
    gives_up_alone(|| Json::encode(&"x".repeat(amends::MAX_JSON_BYTES)).map_err(StepError::Data), "bytes long").await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_stored_fails_its_step() {
    let script = Script::new().tx(
        "odd",
        writes(|tx| {
            tx.publish(&Noted("\0".into()))?;
            Ok(Json::null())
        }),
    );
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    assert_eq!(published(&stage), Vec::<String>::new());
    assert_eq!(script.log.lines(), ["odd"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_text_of_nuls_and_megabytes_is_cut_and_the_saga_goes_on() {
    let terrible = || "\0é".repeat(1 << 20);
    let script = Script::new()
        .call("a", answers(move || Err(StepError::retry(terrible()))))
        .undo(StepKind::Call, ok())
        .call("b", answers(move || Err(reject(terrible()))))
        .after(&[]);
    let stage = Stage::new();

    let (_worker, saga) = stage.play(&script).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    let text = serde_json::to_string(&stage.events(saga).await).unwrap();
    assert!(text.len() < 100_000 && !text.contains("\\u0000"));
}

#[tokio::test(start_paused = true)]
async fn an_input_of_another_shape_fails_its_step_and_says_what_is_missing() {
    let reads = body(|_, data| {
        Box::pin(async move {
            data.input::<Noted>()?;
            Ok(Json::null())
        })
    });
    let script = Script::new().tx("read", reads);
    let stage = Stage::new();
    let _worker = stage.work(&script);

    let saga = stage.start_with(&script, Json::encode(&7).unwrap()).await;

    assert_eq!(stage.outcome(saga).await, Some(Outcome::Compensated));
    let events = stage.events(saga).await;
    assert!(matches!(&events[0], Event::Failed { failure, .. } if failure.cause == Cause::Data), "{events:?}");
}
