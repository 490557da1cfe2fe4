//! Steps: one after another, side by side, in transactions, for each item, or not at all.

use std::collections::BTreeMap;

use amends::testing::{Handle, TestTx, explore, explore_with_database};
use amends::{Call, Message, StepResult, saga, skip};
use serde::{Deserialize, Serialize};

use super::{booked, holds, stands, stands_one};
use crate::shop::{Desk, Shop};

struct Branches(Handle<Shop>);

#[saga(name = "branches", version = 1, input = i64)]
impl Branches {
    #[step(call, after = start, compensate = undo_a)]
    async fn a(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 1);
        Ok(())
    }

    #[step(call, after = start, compensate = undo_b)]
    async fn b(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 2);
        Ok(())
    }

    #[step(call, after = [a, b], compensate = undo_join)]
    async fn join(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 3);
        Ok(())
    }

    #[step(call, compensate = none)]
    async fn check(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    #[compensate]
    async fn undo_a(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_b(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_join(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

#[test]
fn branches_that_join() {
    holds!(booked(stands_one(explore(Shop::default()).saga(|shop| Branches(shop.clone()), &7)), 3).never_parked());
}

#[derive(Clone, Debug, Default, Hash)]
struct Stock {
    free: i64,
    reserved: BTreeMap<u32, i64>,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "stock.reserved")]
struct StockReserved(i64);

#[derive(Serialize, Deserialize, Message)]
#[message(name = "stock.released")]
struct StockReleased(i64);

struct Transactions;

#[saga(name = "transactions", version = 1, input = i64)]
impl Transactions {
    #[step(tx, compensate = release)]
    async fn reserve(&self, tx: &mut TestTx<Stock>, input: &i64) -> StepResult<u32> {
        let stock = tx.database();
        stock.free -= input;
        let id = stock.reserved.len() as u32;
        stock.reserved.insert(id, *input);
        tx.publish(&StockReserved(*input))?;
        Ok(id)
    }

    #[step(tx, compensate = none)]
    async fn ship(&self, _tx: &mut TestTx<Stock>) -> StepResult<()> {
        Ok(())
    }

    #[compensate]
    async fn release(&self, tx: &mut TestTx<Stock>, reserve: &u32) -> StepResult<()> {
        let stock = tx.database();
        let quantity = stock.reserved.remove(reserve).unwrap_or_default();
        stock.free += quantity;
        tx.publish(&StockReleased(quantity))
    }
}

#[test]
fn transactions_that_publish() {
    let explorer = explore_with_database((), Stock { free: 9, ..Stock::default() }).saga(|_| Transactions, &2);
    holds!(
        stands(explorer)
            .always("stock and events agree", |it| {
                let reserved = it.published.iter().filter(|it| it.name == "stock.reserved").count();
                let released = it.published.iter().filter(|it| it.name == "stock.released").count();
                it.database.reserved.len() == reserved - released
            })
            .when_completed("two are reserved", |it| it.database.free == 7)
            .when_compensated("all are free", |it| it.database.free == 9)
            .never_parked()
    );
}

struct Lines(Handle<Shop>);

#[saga(name = "lines", version = 1, input = Vec<i64>)]
impl Lines {
    #[step(call, for_each = input, concurrency = 2, compensate = release)]
    async fn reserve(&self, call: &Call, item: &i64) -> StepResult<()> {
        self.0.book(call, *item);
        Ok(())
    }

    #[step(call, compensate = none)]
    async fn check(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    #[compensate]
    async fn release(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

#[test]
fn a_step_for_each_line() {
    holds!(
        booked(stands_one(explore(Shop::default()).saga(|shop| Lines(shop.clone()), &vec![1, 2])), 2).never_parked()
    );
}

struct Skips(Handle<Shop>);

#[saga(name = "skips", version = 1, input = bool)]
impl Skips {
    #[step(call, skippable, compensate = cancel_car)]
    async fn car(&self, call: &Call, input: &bool) -> StepResult<i64> {
        if !input {
            return Err(skip("no roads"));
        }
        self.0.book(call, 1);
        Ok(1)
    }

    #[step(call, compensate = cancel_room)]
    async fn room(&self, call: &Call, car: Option<&i64>) -> StepResult<()> {
        self.0.book(call, car.copied().unwrap_or_default());
        Ok(())
    }

    #[step(call, compensate = none)]
    async fn check(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    #[compensate]
    async fn cancel_car(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn cancel_room(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

#[test]
fn a_step_that_skips_itself() {
    for (roads, most) in [(true, 2), (false, 1)] {
        holds!(
            booked(stands_one(explore(Shop::default()).saga(|shop| Skips(shop.clone()), &roads)), most).never_parked()
        );
    }
}

/// What its tx step needs of a database, whichever it is.
trait Ledger: amends::StepTransaction {
    fn enter(&mut self, cents: i64);
}

impl Ledger for TestTx<Vec<i64>> {
    fn enter(&mut self, cents: i64) {
        self.database().push(cents);
    }
}

struct Anywhere<T>(Handle<Shop>, std::marker::PhantomData<fn() -> T>);

#[saga(name = "anywhere", version = 1, input = i64)]
impl<T: Ledger> Anywhere<T> {
    #[step(tx, compensate = give_back)]
    async fn take(&self, tx: &mut T, input: &i64) -> StepResult<i64> {
        tx.enter(-input);
        Ok(*input)
    }

    #[step(call, compensate = cancel)]
    async fn book(&self, call: &Call, take: &i64) -> StepResult<()> {
        self.0.book(call, *take);
        Ok(())
    }

    #[step(call, compensate = none)]
    async fn check(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    #[compensate]
    async fn give_back(&self, tx: &mut T, take: &i64) -> StepResult<()> {
        tx.enter(*take);
        Ok(())
    }

    #[compensate]
    async fn cancel(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

#[test]
fn a_saga_that_is_written_over_any_transaction() {
    let explorer = explore_with_database(Shop::default(), Vec::<i64>::new())
        .saga(|shop| Anywhere(shop.clone(), std::marker::PhantomData), &7);
    holds!(
        booked(stands(explorer), 1)
            .when_completed("it is paid", |it| it.database.iter().sum::<i64>() == -7)
            .when_compensated("nothing is paid", |it| it.database.iter().sum::<i64>() == 0)
            .never_parked()
    );
}
