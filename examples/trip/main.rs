//! A trip of flight, hotel and car, booked in parallel and paid at the end; if one of them is not to be had, the others
//! are given back. The example of steno and Omicron: `cargo run -p amends-examples --example trip`.
#![allow(clippy::unused_async, reason = "real steps await other services")]

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use amends::{Call, Ended, Error, MemoryStore, Sagas, StepError, StepResult, reject, saga};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trip {
    to: String,
    cents: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Booking {
    reference: String,
}

#[derive(Default)]
struct BookTrip {
    agency: Agency,
}

/// What costs money comes last: all that can fail before it is free to give back.
#[saga(name = "book-trip", version = 1, input = Trip, deadline = "1h")]
impl BookTrip {
    #[step(call, after = start, compensate = cancel_flight, retry(attempts = 3, backoff = "20ms..1s"))]
    async fn flight(&self, call: &Call, input: &Trip) -> StepResult<Booking> {
        self.agency.book(call, "flight", &input.to)
    }

    #[step(call, after = start, compensate = cancel_hotel)]
    async fn hotel(&self, call: &Call, input: &Trip) -> StepResult<Booking> {
        self.agency.book(call, "hotel", &input.to)
    }

    /// Who goes to an island needs none.
    #[step(call, after = start, skippable, compensate = cancel_car)]
    async fn car(&self, call: &Call, input: &Trip) -> StepResult<Booking> {
        if input.to.ends_with("island") {
            Err(amends::skip("no roads"))
        } else {
            self.agency.book(call, "car", &input.to)
        }
    }

    #[step(call, pivot, after = [flight, hotel, car], timeout = "10s")]
    async fn pay(&self, _call: &Call, input: &Trip, flight: &Booking, car: Option<&Booking>) -> StepResult<String> {
        let drive = car.map_or("on foot".to_owned(), |car| format!("with car {}", car.reference));
        Ok(format!("{} cents for flight {}, {drive}", input.cents, flight.reference))
    }

    #[compensate]
    async fn cancel_flight(&self, call: &Call, flight: Option<&Booking>) -> StepResult<()> {
        self.agency.cancel(call, flight)
    }

    #[compensate]
    async fn cancel_hotel(&self, call: &Call, hotel: Option<&Booking>) -> StepResult<()> {
        self.agency.cancel(call, hotel)
    }

    #[compensate]
    async fn cancel_car(&self, call: &Call, car: Option<&Booking>) -> StepResult<()> {
        self.agency.cancel(call, car)
    }
}

/// Whether each booking stands, by its idempotency key. What was given back stays, so that a request that comes late books
/// nothing.
type Bookings = BTreeMap<String, bool>;

#[derive(Debug, Default)]
struct Agency {
    bookings: Arc<Mutex<Bookings>>,
}

impl Agency {
    fn book(&self, call: &Call, what: &str, to: &str) -> StepResult<Booking> {
        if what == "hotel" && to == "Atlantis" {
            return Err(reject("no_rooms"));
        }
        self.open()?.entry(call.step_key().into()).or_insert(true);
        Ok(Booking { reference: format!("{what} to {to}") })
    }

    fn cancel(&self, call: &Call, booking: Option<&Booking>) -> StepResult<()> {
        println!("  giving back {}", booking.map_or("whatever was booked", |booking| &booking.reference));
        self.open()?.insert(call.step_key().into(), false);
        Ok(())
    }

    fn open(&self) -> StepResult<MutexGuard<'_, Bookings>> {
        self.bookings.lock().map_err(|_| StepError::retry("the agency is closed"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let sagas = Sagas::builder(MemoryStore::new()).register(BookTrip::default()).build()?;
    tokio::select! {
        booked = book(&sagas) => booked.map(drop),
        ended = sagas.run(CancellationToken::new()) => ended, // the worker
    }
}

async fn book(sagas: &Sagas<MemoryStore>) -> Result<Vec<Ended<String>>, Error> {
    let mut all = Vec::new();
    for (to, cents) in [("Oslo", 70_000), ("Treasure island", 90_000), ("Atlantis", 1)] {
        println!("a trip to {to}:");
        let trip = sagas.start_now(BookTrip::key(to), &Trip { to: to.to_owned(), cents }).await?.id();
        let ended = sagas.outcome::<BookTrip>(trip).await?;
        println!("  {ended:?}");
        all.push(ended);
    }
    Ok(all)
}
