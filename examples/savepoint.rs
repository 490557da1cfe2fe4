//! Savepoints and alternates, as in section 5 of *Sagas* (Garcia-Molina and Salem, 1987): when the first way to travel
//! fails, the saga goes back to its savepoint and takes the other. `cargo run -p amends-examples --example savepoint`.
#![allow(clippy::unused_async, reason = "real steps await other services")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use amends::{Call, Ended, Error, MemoryStore, Sagas, StepError, StepResult, reject, saga};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Serialize, Deserialize)]
struct Visit {
    conference: String,
    airport_hotel_is_full: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Room {
    hotel: String,
}

/// Whether each plan stands, by its idempotency key. What was dropped stays, so that a request that comes late does nothing.
type Plans = BTreeMap<String, bool>;

/// Travels to a conference.
#[derive(Default)]
struct Attend {
    plans: Arc<Mutex<Plans>>,
}

#[saga(name = "attend-conference", version = 1, input = Visit)]
impl Attend {
    #[step(call, savepoint, compensate = deregister)]
    async fn register(&self, call: &Call, input: &Visit) -> StepResult<String> {
        self.plan(call, format!("register for {}", input.conference))
    }

    #[step(call, compensate = cancel_flight)]
    async fn flight(&self, call: &Call) -> StepResult<String> {
        self.plan(call, "book a flight".into())
    }

    /// If the hotel at the airport is full, the flight is of no use either.
    #[step(call, compensate = leave_airport_hotel, alternate = station_hotel)]
    async fn airport_hotel(&self, call: &Call, input: &Visit) -> StepResult<Room> {
        if input.airport_hotel_is_full {
            return Err(reject("full"));
        }
        self.plan(call, "take a room at the airport".into())?;
        Ok(Room { hotel: "Airport Inn".into() })
    }

    #[step(call, after = register, compensate = cancel_train)]
    async fn train(&self, call: &Call) -> StepResult<String> {
        self.plan(call, "book a train".into())
    }

    #[step(call, compensate = leave_station_hotel)]
    async fn station_hotel(&self, call: &Call) -> StepResult<Room> {
        self.plan(call, "take a room at the station".into())?;
        Ok(Room { hotel: "Station Hotel".into() })
    }

    /// Reads the room of whichever path was taken.
    #[step(call, pivot, after = airport_hotel)]
    async fn pay(&self, call: &Call, airport_hotel: &Room) -> StepResult<String> {
        self.plan(call, format!("pay for the {}", airport_hotel.hotel))
    }

    #[compensate]
    async fn deregister(&self, call: &Call) -> StepResult<()> {
        self.drop(call, "deregister")
    }

    #[compensate]
    async fn cancel_flight(&self, call: &Call) -> StepResult<()> {
        self.drop(call, "cancel the flight")
    }

    #[compensate]
    async fn leave_airport_hotel(&self, call: &Call) -> StepResult<()> {
        self.drop(call, "leave the airport hotel")
    }

    #[compensate]
    async fn cancel_train(&self, call: &Call) -> StepResult<()> {
        self.drop(call, "cancel the train")
    }

    #[compensate]
    async fn leave_station_hotel(&self, call: &Call) -> StepResult<()> {
        self.drop(call, "leave the station hotel")
    }

    fn plan(&self, call: &Call, what: String) -> StepResult<String> {
        println!("  {what}");
        self.open()?.entry(call.step_key().into()).or_insert(true);
        Ok(what)
    }

    fn drop(&self, call: &Call, what: &str) -> StepResult<()> {
        println!("  {what}");
        self.open()?.insert(call.step_key().into(), false);
        Ok(())
    }

    fn open(&self) -> StepResult<MutexGuard<'_, Plans>> {
        self.plans.lock().map_err(|_| StepError::retry("no pen"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let sagas = Sagas::builder(MemoryStore::new()).register(Attend::default()).build()?;
    tokio::select! {
        travelled = travel(&sagas) => travelled.map(drop),
        ended = sagas.run(CancellationToken::new()) => ended, // the worker
    }
}

async fn travel(sagas: &Sagas<MemoryStore>) -> Result<Vec<Ended<String>>, Error> {
    let mut all = Vec::new();
    for airport_hotel_is_full in [false, true] {
        println!("a room at the airport: {}", if airport_hotel_is_full { "none" } else { "yes" });
        let visit = Visit { conference: "SIGMOD 1987".to_owned(), airport_hotel_is_full };
        let saga = sagas.start_now(Attend::unkeyed(), &visit).await?.id();
        all.push(sagas.outcome::<Attend>(saga).await?);
    }
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
#[tokio::test]
async fn without_a_room_at_the_airport_it_goes_back_to_the_savepoint_and_takes_the_train() {
    expect_test::expect![[r#"
        saga attend-conference v1
          call register, savepoint, undone by call deregister
          call flight after register, undone by call cancel_flight
          call airport_hotel after flight, undone by call leave_airport_hotel, else station_hotel
          call train after register, undone by call cancel_train
          call station_hotel after train, undone by call leave_station_hotel
          call pay after airport_hotel, pivot"#]]
    .assert_eq(&Attend::DEFINITION.to_string());
    let sagas = Sagas::builder(MemoryStore::new()).register(Attend::default()).build().expect("it is sound");
    let worker = tokio::spawn({
        let sagas = sagas.clone();
        async move { sagas.run(CancellationToken::new()).await }
    });
    let all = travel(&sagas).await.expect("the store is there");
    let paid = |hotel: &str| Ended::Completed(format!("pay for the {hotel}"));
    assert_eq!(all, [paid("Airport Inn"), paid("Station Hotel")]);
    worker.abort();
}

#[cfg(test)]
#[test]
fn whatever_goes_wrong_one_way_is_planned_whole_or_nothing_is() {
    let planned = |plans: &Plans| plans.values().filter(|stands| **stands).count();
    let visit = Visit { conference: "SIGMOD 1987".into(), airport_hotel_is_full: false };
    let report = amends::testing::explore(Plans::new())
        .saga(|it| Attend { plans: it.shared() }, &visit)
        .crashes(2)
        .transient(1)
        .zombies(1)
        .when_completed("the fee, a way, a room and the bill", move |it| planned(it.world) == 4)
        .when_compensated("nothing is planned", move |it| planned(it.world) == 0)
        .check();
    assert!(report.is_exhaustive());
}
