//! The saga of the README, over any store.

use amends::{Call, Message, StepResult, StepTransaction, Store, reject, saga};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct Order {
    pub id: u64,
    pub cents: i64,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub struct Reservation {
    pub id: u64,
}

#[derive(Serialize, Deserialize)]
pub struct Payment {
    pub cents: i64,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "stock.reserved", key = id)]
pub struct StockReserved {
    pub id: u64,
}

pub struct PlaceOrder<S> {
    pub store: S,
}

#[saga(name = "place-order", version = 1, input = Order)]
impl<S: Store> PlaceOrder<S> {
    #[step(tx, compensate = release)]
    async fn reserve(&self, tx: &mut S::Tx, input: &Order) -> StepResult<Reservation> {
        tx.publish(&StockReserved { id: input.id })?;
        Ok(Reservation { id: input.id })
    }

    #[step(call, compensate = refund, retry(attempts = 8, backoff = "200ms..1m"), timeout = "10s")]
    async fn charge(&self, call: &Call, input: &Order, reserve: &Reservation) -> StepResult<Payment> {
        if call.idempotency_key().is_empty() || reserve.id != input.id {
            return Err(reject("card_declined"));
        }
        Ok(Payment { cents: input.cents })
    }

    #[step(call, after = reserve, compensate = none)]
    async fn check(&self, _call: &Call, reserve: &Reservation) -> StepResult<bool> {
        Ok(reserve.id > 0)
    }

    #[step(tx, pivot, after = [charge, check])]
    async fn ship(&self, _tx: &mut S::Tx, charge: &Payment, check: &bool) -> StepResult<()> {
        let _ = (charge.cents, check);
        Ok(())
    }

    #[step(call, retry(attempts = forever))]
    async fn notify(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    #[compensate]
    async fn release(&self, _tx: &mut S::Tx, reserve: &Reservation) -> StepResult<()> {
        let _ = reserve.id;
        Ok(())
    }

    #[compensate(retry(attempts = 3), timeout = "1m")]
    async fn refund(&self, _call: &Call, charge: Option<&Payment>) -> StepResult<()> {
        let _ = charge.map(|payment| payment.cents);
        Ok(())
    }

    fn helper(&self) -> &S {
        &self.store
    }
}

#[test]
fn the_saga_of_the_readme_over_any_store() {
    let saga = PlaceOrder { store: amends::MemoryStore::new() };
    let _ = saga.helper();
    println!("{}", PlaceOrder::<amends::MemoryStore>::DEFINITION);
    assert_eq!(
        PlaceOrder::<amends::MemoryStore>::DEFINITION.to_string(),
        "saga place-order v1\n  tx reserve, undone by tx release (needs its output)\n  call charge after reserve, undone by call refund\
         \n  call check after reserve\n  tx ship after charge, check, pivot\n  call notify after ship"
    );
    let _ = amends::Sagas::builder(amends::MemoryStore::new()).register(saga).build().unwrap();
}
