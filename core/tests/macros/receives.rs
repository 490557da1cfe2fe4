//! What the methods receive.

use amends::memory::MemoryTx;
use amends::{Call, MemoryStore, Sagas, StepResult, reject, saga};
use expect_test::expect;
use tokio_util::sync::CancellationToken;

use super::Notes;

/// Writes down what each of its methods receives.
#[derive(Clone, Default)]
struct Trip(Notes);

#[saga(name = "trip", version = 1, input = (String, bool))]
impl Trip {
    #[step(call, compensate = leave)]
    async fn flight(&self, _call: &Call, input: &(String, bool)) -> StepResult<String> {
        self.0.note(format!("flight to {}", input.0));
        Ok("12A".to_owned())
    }

    #[step(tx, compensate = cancel, name = "bed", after = start)]
    async fn hotel(&self, _tx: &mut MemoryTx) -> StepResult<Vec<u8>> {
        self.0.note("hotel".to_owned());
        Ok(vec![1, 2])
    }

    #[step(call, pivot, after = [flight, hotel])]
    async fn pay(&self, _call: &Call, flight: &str, hotel: &[u8], input: &(String, bool)) -> StepResult<u64> {
        self.0.note(format!("pay for {flight} and {hotel:?}"));
        if input.1 { Ok(7) } else { Err(reject("card_declined")) }
    }

    #[step(tx)]
    async fn tell(&self, _tx: &mut MemoryTx, pay: &u64) -> StepResult<()> {
        self.0.note(format!("tell of {pay}"));
        Ok(())
    }

    #[compensate]
    async fn leave(&self, _tx: &mut MemoryTx, flight: Option<&str>, input: &(String, bool)) -> StepResult<u8> {
        self.0.note(format!("leave {flight:?} to {}", input.0));
        Ok(0)
    }

    #[compensate]
    async fn cancel(&self, _call: &Call, hotel: &Vec<u8>) -> StepResult<()> {
        self.0.note(format!("cancel {hotel:?}"));
        Ok(())
    }
}

/// What the methods of a trip received until it ended, in alphabetical order, since branches run in parallel.
async fn trip(card_is_good: bool) -> String {
    let trip = Trip::default();
    let sagas = Sagas::builder(MemoryStore::new()).register(trip.clone()).build().expect("a sound saga");
    let input = ("Rome".to_owned(), card_is_good);
    let saga = sagas.start_now(Trip::unkeyed(), &input).await.expect("a sound input").id();
    tokio::select! {
        ended = sagas.outcome::<Trip>(saga) => {
            let completed = ended.expect("the store is there").completed();
            assert_eq!(completed.is_some(), card_is_good);
        }
        stopped = sagas.run(CancellationToken::new()) => panic!("the worker stopped: {stopped:?}"),
    }
    let mut notes = trip.0.take();
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
