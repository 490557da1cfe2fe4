//! The smallest saga, on the in-memory store: `cargo run -p amends-examples --example quickstart`.

use amends::{Call, MemoryStore, Sagas, StepResult, reject, saga};
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
        if !input.card_is_good {
            println!("  the card is refused");
            return Err(reject("card_declined"));
        }
        println!("  the card is charged for seat {hold}");
        Ok(())
    }

    #[compensate]
    async fn give_back(&self, _call: &Call, hold: Option<&String>) -> StepResult<()> {
        println!("  give back seat {}", hold.map_or("(whichever it was)", String::as_str));
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sagas = Sagas::builder(MemoryStore::new()).register(BuyTicket).build()?;
    let (worker, shutdown) = (sagas.clone(), CancellationToken::new());
    let worker = tokio::spawn({
        let stop = shutdown.clone();
        async move { worker.run(stop).await }
    });

    for (seat, card_is_good) in [("12A", true), ("12B", false)] {
        println!("a ticket for {seat}:");
        let saga = sagas.start_now(BuyTicket::key(seat), &Ticket { seat: seat.into(), card_is_good }).await?.id();
        let outcome = loop {
            if let Some(outcome) = sagas.outcome(saga).await? {
                break outcome;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        println!("  {outcome:?}");
    }
    shutdown.cancel();
    Ok(worker.await??)
}
