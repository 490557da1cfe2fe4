//! What `#[saga]` accepts, and the one message that each mistake gives.

// expect-test writes raw strings.
#![allow(missing_docs, clippy::needless_raw_string_hashes)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::memory::MemoryTx;
use amends::{Call, MemoryStore, RetryPolicy, Sagas, StepResult, Store, reject, saga};
use expect_test::expect;
use tokio_util::sync::CancellationToken;

/// The messages of `tests/ui/fail` were written by this compiler; another words its own part differently.
const WRITTEN_BY: &str = "1.95";

#[test]
fn each_mistake_gives_one_message_on_its_token() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    let version = std::process::Command::new("rustc").arg("--version").output().expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout);
    if version.starts_with(&format!("rustc {WRITTEN_BY}")) {
        cases.compile_fail("tests/ui/fail/*.rs");
    } else {
        eprintln!("skipped the compile-fail cases: they were written by rustc {WRITTEN_BY}, this is {version}");
    }
}

struct PlaceOrder<S>(S);

#[saga(name = "place-order", version = 2, input = u64)]
impl<S: Store> PlaceOrder<S> {
    #[step(tx, compensate = release)]
    async fn reserve(&self, _tx: &mut S::Tx, input: &u64) -> StepResult<u64> {
        Ok(*input)
    }

    #[step(call, compensate = refund, retry(attempts = 3, backoff = "1s..1m"), timeout = "10s")]
    async fn charge(&self, _call: &Call, reserve: &u64) -> StepResult<u64> {
        Ok(*reserve)
    }

    #[step(call, compensate = none, after = start, retry(attempts = forever))]
    async fn look(&self, _call: &Call) -> StepResult<u64> {
        Ok(1)
    }

    #[step(tx, compensate = forget, name = "note", after = reserve)]
    async fn write(&self, _tx: &mut S::Tx, reserve: &u64) -> StepResult<u64> {
        Ok(*reserve)
    }

    #[step(call, pivot, after = [charge, look, write])]
    async fn ship(&self, _call: &Call, charge: &u64, look: &u64, reserve: &u64) -> StepResult<u64> {
        Ok(charge + look + reserve)
    }

    #[step(tx, retry(backoff = "2s..3s"))]
    async fn tell(&self, _tx: &mut S::Tx, ship: &u64) -> StepResult<()> {
        let _ = ship;
        Ok(())
    }

    #[compensate(timeout = "2m")]
    async fn release(&self, _tx: &mut S::Tx, reserve: &u64) -> StepResult<()> {
        let _ = reserve;
        Ok(())
    }

    #[compensate(retry(attempts = forever))]
    async fn refund(&self, _tx: &mut S::Tx, charge: Option<&u64>, reserve: &u64) -> StepResult<()> {
        let _ = (charge, reserve);
        Ok(())
    }

    #[compensate]
    async fn forget(&self, _call: &Call, input: &u64) -> StepResult<()> {
        let _ = input;
        Ok(())
    }
}

const DEFINITION: &amends::Definition = PlaceOrder::<MemoryStore>::DEFINITION;

#[test]
fn the_graph_is_in_the_signatures() {
    expect![[r#"
        saga place-order v2
          tx reserve, undone by tx release (needs its output)
          call charge after reserve, undone by tx refund
          call look
          tx note after reserve, undone by call forget
          call ship after charge, look, note, pivot
          tx tell after ship"#]]
    .assert_eq(&DEFINITION.to_string());
    DEFINITION.validate().expect("what the macro accepts, the engine accepts");
}

#[test]
fn a_step_is_retried_as_written_or_by_its_place() {
    let policy = |attempts, first, longest| RetryPolicy {
        attempts,
        first: Duration::from_secs(first),
        longest: Duration::from_secs(longest),
    };
    let policies: Vec<_> = DEFINITION.steps.iter().map(|step| step.retry).collect();
    let forever = RetryPolicy { attempts: None, ..RetryPolicy::STEP };
    assert_eq!(
        policies,
        [RetryPolicy::STEP, policy(Some(3), 1, 60), forever, RetryPolicy::STEP, RetryPolicy::STEP, policy(None, 2, 3)]
    );
    let undo: Vec<_> = DEFINITION.steps.iter().filter_map(|step| step.compensation.as_ref()).collect();
    assert_eq!(undo[0].retry, RetryPolicy::COMPENSATION);
    assert_eq!(undo[1].retry, RetryPolicy { attempts: None, ..RetryPolicy::COMPENSATION });
}

#[test]
fn a_step_takes_the_time_that_is_written_or_the_default() {
    let timeouts: Vec<_> = DEFINITION.steps[..2].iter().map(|step| step.timeout).collect();
    assert_eq!(timeouts, [amends::Definition::DEFAULT_TIMEOUT, Duration::from_secs(10)]);
    let undo = DEFINITION.steps[0].compensation.as_ref().map(|undo| undo.timeout);
    assert_eq!(undo, Some(Duration::from_mins(2)));
}

#[test]
fn a_step_is_a_constant_with_the_name_under_which_it_is_recorded() {
    type Saga = PlaceOrder<MemoryStore>;
    assert_eq!((Saga::CHARGE, Saga::WRITE), ("charge", "note"));
    let _ = (PlaceOrder(MemoryStore::new()).0, Saga::key(7), Saga::unkeyed());
}

/// Writes down what each of its methods receives.
#[derive(Clone, Default)]
struct Trip(Arc<Mutex<Vec<String>>>);

#[saga(name = "trip", version = 1, input = (String, bool))]
impl Trip {
    #[step(call, compensate = leave)]
    async fn flight(&self, _call: &Call, input: &(String, bool)) -> StepResult<String> {
        self.note(format!("flight to {}", input.0));
        Ok("12A".to_owned())
    }

    #[step(tx, compensate = cancel, name = "bed", after = start)]
    async fn hotel(&self, _tx: &mut MemoryTx) -> StepResult<Vec<u8>> {
        self.note("hotel".to_owned());
        Ok(vec![1, 2])
    }

    #[step(call, pivot, after = [flight, hotel])]
    async fn pay(&self, _call: &Call, flight: &str, hotel: &[u8], input: &(String, bool)) -> StepResult<u64> {
        self.note(format!("pay for {flight} and {hotel:?}"));
        if input.1 { Ok(7) } else { Err(reject("card_declined")) }
    }

    #[step(tx)]
    async fn tell(&self, _tx: &mut MemoryTx, pay: &u64) -> StepResult<()> {
        self.note(format!("tell of {pay}"));
        Ok(())
    }

    #[compensate]
    async fn leave(&self, _tx: &mut MemoryTx, flight: Option<&str>, input: &(String, bool)) -> StepResult<u8> {
        self.note(format!("leave {flight:?} to {}", input.0));
        Ok(0)
    }

    #[compensate]
    async fn cancel(&self, _call: &Call, hotel: &Vec<u8>) -> StepResult<()> {
        self.note(format!("cancel {hotel:?}"));
        Ok(())
    }

    fn note(&self, text: String) {
        self.0.lock().expect("nobody panics with the lock").push(text);
    }
}

/// What the methods of a trip received until it ended, in alphabetical order, since branches run in parallel.
async fn trip(card_is_good: bool) -> String {
    let trip = Trip::default();
    let sagas = Sagas::builder(MemoryStore::new()).register(trip.clone()).build().expect("a sound saga");
    let input = ("Rome".to_owned(), card_is_good);
    let saga = sagas.start_now(Trip::unkeyed(), &input).await.expect("a sound input").id();
    let ended = async {
        while sagas.outcome(saga).await.expect("the store is there").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = ended => {}
        stopped = sagas.run(CancellationToken::new()) => panic!("the worker stopped: {stopped:?}"),
    }
    let mut notes = std::mem::take(&mut *trip.0.lock().expect("nobody panics with the lock"));
    notes.sort();
    notes.join("\n")
}

#[tokio::test(start_paused = true)]
async fn each_method_receives_what_its_parameters_name() {
    expect![[r#"
        flight to Rome
        hotel
        pay for 12A and [1, 2]
        tell of 7"#]]
    .assert_eq(&trip(true).await);
}

#[tokio::test(start_paused = true)]
async fn each_compensation_receives_what_its_parameters_name() {
    expect![[r#"
        cancel [1, 2]
        flight to Rome
        hotel
        leave Some("12A") to Rome
        pay for 12A and [1, 2]"#]]
    .assert_eq(&trip(false).await);
}
