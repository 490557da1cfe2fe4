//! The harness runs a saga once, with the faults that a test wants.
#![allow(clippy::unused_async, reason = "real steps await other services")]
#![allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::testing::{Effect, Harness, TestTx};
use amends::{Call, Child, Message, Outcome, Rejection, Request, Signal, StepResult, reject, saga};
use expect_test::expect;
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, call: &Call, what: &str) {
        self.0.lock().unwrap().push(format!("{what} {}", call.attempt()));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Buy(Seen);

#[saga(name = "buy", version = 1, input = i64)]
impl Buy {
    #[step(tx, compensate = release)]
    async fn reserve(&self, tx: &mut TestTx<i64>, input: &i64) -> StepResult<i64> {
        *tx.database() -= input;
        tx.publish(&Reserved(*input))?;
        Ok(*input)
    }

    #[step(call, compensate = refund, delay = "1h")]
    async fn charge(&self, call: &Call, reserve: &i64) -> StepResult<i64> {
        self.0.note(call, "charge");
        Ok(100 * reserve)
    }

    #[step(call, compensate = none)]
    async fn ship(&self, call: &Call) -> StepResult<()> {
        self.0.note(call, "ship");
        Ok(())
    }

    #[compensate]
    async fn release(&self, tx: &mut TestTx<i64>, reserve: &i64) -> StepResult<()> {
        *tx.database() += reserve;
        Ok(())
    }

    #[compensate]
    async fn refund(&self, call: &Call, charge: Option<&i64>) -> StepResult<()> {
        self.0.note(call, if charge.is_some() { "refund" } else { "refund if need be" });
        Ok(())
    }
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "reserved")]
struct Reserved(i64);

fn buy() -> (Harness<Buy, amends::testing::World<(), i64>>, Seen) {
    let seen = Seen::default();
    (Harness::with_database(Buy(seen.clone()), 10), seen)
}

#[tokio::test(start_paused = true)]
async fn a_saga_runs_to_its_end_in_no_time() {
    let (harness, seen) = buy();
    let began = tokio::time::Instant::now();

    let run = harness.run(&3).await;

    assert_eq!(run.outcome(), Some(Outcome::Completed));
    assert_eq!(run.output(Buy::CHARGE).unwrap(), Some(300));
    assert_eq!(*run.database(), 7);
    assert_eq!(run.published().len(), 1);
    assert_eq!(seen.take(), ["charge 1", "ship 1"]);
    assert!(began.elapsed() < Duration::from_secs(1), "the delay of an hour is virtual");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_has_what_came_before_it_undone() {
    let (harness, seen) = buy();

    let run = harness.fail_at(Buy::SHIP).run(&3).await;

    expect![[r#"
        reserve: 3
        charge: 300
        ship: rejected, failed_by_test
        charge: undone
        reserve: undone
        compensated
    "#]]
    .assert_eq(&run.log());
    assert_eq!(run.rejection().unwrap().code, "failed_by_test");
    assert_eq!(*run.database(), 10);
    assert_eq!(seen.take(), ["charge 1", "refund 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_is_tried_again() {
    let (harness, seen) = buy();

    let run = harness.retry_at(Buy::CHARGE).retry_at(Buy::CHARGE).run(&3).await;

    assert_eq!(run.outcome(), Some(Outcome::Completed));
    assert_eq!(seen.take(), ["charge 3", "ship 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_step_of_which_nobody_knows_is_undone_without_knowing() {
    for (effect, expected) in [
        (Effect::Absent, vec!["refund if need be 1"]),
        (Effect::Present, vec!["charge 1", "refund if need be 1"]),
        (Effect::Late, vec!["refund if need be 1", "charge 1"]),
    ] {
        let (harness, seen) = buy();
        let run = harness.time_out_at(Buy::CHARGE, effect).run(&3).await;
        assert_eq!(run.outcome(), Some(Outcome::Compensated));
        assert_eq!(seen.take(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_dies_between_an_effect_and_its_record() {
    let (harness, seen) = buy();

    let run = harness.crash_at(Buy::RESERVE).crash_at(Buy::CHARGE).run(&3).await;

    assert_eq!(run.outcome(), Some(Outcome::Completed));
    assert_eq!(*run.database(), 7, "the transaction was rolled back, and run again");
    assert_eq!(seen.take(), ["charge 1", "charge 1", "ship 1"]);
    assert_eq!(run.log().matches("another worker took over").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_compensation_that_is_stuck_parks_the_saga() {
    let (harness, _) = buy();

    let run =
        harness.fail_at(Buy::SHIP).retry_compensation_of(Buy::CHARGE).park_compensation_of(Buy::CHARGE).run(&3).await;

    assert_eq!(run.outcome(), None);
    assert!(run.log().ends_with("parked, compensation_stuck at charge\n"), "{run:?}");
}

#[tokio::test(start_paused = true)]
async fn every_body_runs_twice_and_a_transaction_takes_effect_once() {
    let (harness, seen) = buy();

    let run = harness.fail_at(Buy::SHIP).repeat_every_step().run(&3).await;

    assert_eq!(*run.database(), 10);
    assert_eq!(run.published().len(), 1);
    assert_eq!(seen.take(), ["charge 1", "charge 1", "refund 1", "refund 1"]);
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "ask")]
struct Ask(i64);

struct Talks;

#[saga(name = "talks", version = 1, input = i64)]
impl Talks {
    #[step(request, compensate = none)]
    fn ask(&self, input: &i64) -> Request<Ask, String> {
        Request::new(Ask(*input))
    }

    #[step(signal)]
    fn approval(&self) -> Signal<bool> {
        Signal::wait()
    }

    #[step(child)]
    fn part(&self, approval: &bool) -> Child<Part> {
        Child::new(approval)
    }
}

struct Part;

#[saga(name = "part", version = 1, input = bool)]
impl Part {
    #[step(call, compensate = none)]
    async fn decide(&self, _call: &Call, input: &bool) -> StepResult<i64> {
        if *input { Ok(7) } else { Err(reject("no")) }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_signals_and_children_are_answered_by_the_test() {
    let talks = |approval: bool, answer: fn(&Ask) -> Result<String, Rejection>| {
        Harness::new(Talks).reply(answer).signal(Talks::APPROVAL, &approval).child(Part).run(&3)
    };
    let yes = |ask: &Ask| Ok(format!("{} is fine", ask.0));

    let run = talks(true, yes).await;
    assert_eq!(run.output(Talks::ASK).unwrap().as_deref(), Some("3 is fine"));
    assert_eq!(run.output(Talks::PART).unwrap(), Some(7));

    let run = talks(false, yes).await;
    assert_eq!(run.rejection().unwrap().code, "no");

    let run = talks(true, |_| Err(Rejection::new("too_much"))).await;
    assert_eq!(run.rejection().unwrap().code, "too_much");
}

#[tokio::test(start_paused = true)]
async fn a_saga_that_waits_for_what_nobody_sends_fails_the_test() {
    let run = Harness::new(Talks).reply(|_: &Ask| Ok(String::new())).child(Part).run(&3);
    let panic = std::panic::AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("`approval` waits for ever"));
}
