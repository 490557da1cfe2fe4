//! Savepoints and alternates, as in section 5 of *Sagas* (Garcia-Molina and Salem, 1987): when the first way to travel
//! fails, the saga goes back to its savepoint and takes the other. `cargo run -p amends-examples --example savepoint`.
#![allow(clippy::unused_async, reason = "real steps await other services")]

#[cfg(test)]
mod tests;

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
