//! The smallest saga, on the in-memory store: `cargo run -p amends-examples --example quickstart`.
#![allow(clippy::unused_async, reason = "real steps await other services")]

use amends::{Call, Error, MemoryStore, Sagas, StepResult, reject, saga};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

#[derive(Serialize, Deserialize)]
struct Ticket {
    seat: String,
    card_is_good: bool,
}

struct BuyTicket;

#[saga(name = "buy-ticket", version = 1, input = Ticket)]
impl BuyTicket {
    #[step(call, compensate = give_back)]
    async fn hold(&self, call: &Call, input: &Ticket) -> StepResult<String> {
        println!("  hold seat {}, under the key {}", input.seat, call.idempotency_key());
        Ok(input.seat.clone())
    }

    #[step(call, pivot)]
    async fn charge(&self, _call: &Call, input: &Ticket, hold: &String) -> StepResult<()> {
        println!("  charge the card for seat {hold}");
        if input.card_is_good { Ok(()) } else { Err(reject("card_declined")) }
    }

    #[compensate]
    async fn give_back(&self, _call: &Call, hold: Option<&String>) -> StepResult<()> {
        println!("  give back seat {}", hold.map_or("(whichever it was)", String::as_str));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let sagas = Sagas::builder(MemoryStore::new()).register(BuyTicket).build()?;
    tokio::select! {
        bought = buy(&sagas) => bought,
        ended = sagas.run(CancellationToken::new()) => ended, // the worker
    }
}

async fn buy(sagas: &Sagas<MemoryStore>) -> Result<(), Error> {
    for (seat, card_is_good) in [("12A", true), ("12B", false)] {
        println!("a ticket for {seat}:");
        let ticket = Ticket { seat: seat.to_owned(), card_is_good };
        let saga = sagas.start_now(BuyTicket::key(seat), &ticket).await?.id();
        println!("  {:?}", sagas.outcome::<BuyTicket>(saga).await?);
    }
    Ok(())
}

#[cfg(test)]
#[test]
#[allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
fn what_is_written_to_disk_has_not_changed() {
    expect_test::expect![[r#"
        saga buy-ticket v1
          call hold, undone by call give_back
          call charge after hold, pivot"#]]
    .assert_eq(&BuyTicket::DEFINITION.to_string());
}

#[cfg(test)]
#[test]
fn whatever_goes_wrong_it_comes_to_an_end() {
    let ticket = Ticket { seat: "12A".into(), card_is_good: true };
    let report = amends::testing::explore(()).saga(|_| BuyTicket, &ticket).crashes(2).transient(1).zombies(1).check();
    assert!(report.is_exhaustive());
}
