//! Twelve sagas without a mistake: in each, nothing is found.
#![allow(clippy::unused_async, reason = "real steps await other services")]

use std::collections::BTreeMap;

use amends::testing::{Environment, Explorer, Handle, TestTx, World, explore, explore_with_database};
use amends::{Call, Child, Message, Rejection, Request, Signal, StepResult, reject, saga, skip};
use serde::{Deserialize, Serialize};

use crate::shop::{Desk, Shop};

/// What every one of them must stand.
fn stands<E: Environment>(explorer: Explorer<E>) -> Explorer<E> {
    explorer.crashes(2).zombies(1).transient(1).unknown(1).compensation_faults(1).duplicates(1)
}

/// Two faults of each kind would be millions of schedules for the larger ones.
fn stands_one<E: Environment>(explorer: Explorer<E>) -> Explorer<E> {
    explorer.crashes(1).zombies(1).transient(1).unknown(1)
}

fn booked<D>(explorer: Explorer<World<Shop, D>>, most: usize) -> Explorer<World<Shop, D>>
where
    D: Clone + std::hash::Hash + Send + 'static,
{
    explorer
        .when_completed("all is booked", move |it| it.world.booked.len() == most)
        .when_compensated("nothing is booked", |it| it.world.booked.is_empty())
}

macro_rules! holds {
    ($explorer:expr) => {{
        let report = $explorer.check();
        assert!(report.is_exhaustive(), "{report}");
        assert_eq!(report.never(), [] as [&str; 0]);
    }};
}

struct Book(Handle<Shop>);

#[saga(name = "sequence", version = 1, input = i64)]
impl Book {
    #[step(call, compensate = cancel_flight)]
    async fn flight(&self, call: &Call, input: &i64) -> StepResult<i64> {
        self.0.book(call, *input);
        Ok(*input)
    }

    #[step(call, compensate = cancel_hotel)]
    async fn hotel(&self, call: &Call, flight: &i64) -> StepResult<()> {
        self.0.book(call, *flight);
        Ok(())
    }

    #[step(call, pivot, probe = paid)]
    async fn pay(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 1);
        Ok(())
    }

    /// That it did not happen is a promise: whatever still comes is turned away.
    #[probe]
    async fn paid(&self, call: &Call) -> StepResult<Option<()>> {
        let found = self.0.with(|shop| shop.booked.contains_key(call.step_key()));
        if !found {
            self.0.cancel(call);
        }
        Ok(found.then_some(()))
    }

    #[compensate]
    async fn cancel_flight(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn cancel_hotel(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

#[test]
fn a_sequence_with_a_pivot() {
    let explorer = explore(Shop::default()).saga(|shop| Book(shop.clone()), &7);
    holds!(booked(stands(explorer), 3).never_parked());
}

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

#[derive(Serialize, Deserialize, Message)]
#[message(name = "ship")]
struct Ship(i64);

#[derive(Serialize, Deserialize, Message)]
#[message(name = "unship")]
struct Unship(i64);

struct Asks(Handle<Shop>);

#[saga(name = "asks", version = 1, input = i64)]
impl Asks {
    #[step(call, compensate = cancel_hold)]
    async fn hold(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 1);
        Ok(())
    }

    #[step(request, compensate = unship, timeout = "1h")]
    fn ship(&self, input: &i64) -> Request<Ship, i64> {
        Request::new(Ship(*input))
    }

    #[step(call, compensate = none)]
    async fn check(&self, _call: &Call, ship: &i64) -> StepResult<()> {
        if *ship == 7 { Ok(()) } else { Err(reject("wrong")) }
    }

    #[compensate]
    async fn cancel_hold(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    fn unship(&self, input: &i64) -> Request<Unship, ()> {
        Request::new(Unship(*input))
    }
}

/// A participant that remembers what was cancelled before it came.
fn ship(shop: &Handle<Shop>, _: &Ship, key: &str) -> Option<Result<i64, Rejection>> {
    shop.with(|shop| {
        if shop.cancelled.contains(key) {
            return None;
        }
        shop.booked.insert(key.to_owned(), 7);
        Some(Ok(7))
    })
}

#[allow(clippy::unnecessary_wraps, reason = "a participant may leave a request without an answer")]
fn unship(shop: &Handle<Shop>, _: &Unship, key: &str) -> Option<Result<(), Rejection>> {
    let key = key.strip_suffix("/undo").unwrap_or(key).to_owned();
    shop.with(|shop| {
        shop.booked.remove(&key);
        shop.cancelled.insert(key);
    });
    Some(Ok(()))
}

#[test]
fn requests_to_a_participant() {
    let explorer = explore(Shop::default()).saga(|shop| Asks(shop.clone()), &7).participant(ship).participant(unship);
    holds!(booked(explorer.crashes(1).transient(1).unknown(1).effects(&[]).duplicates(1), 2));
}

struct Approves(Handle<Shop>);

#[saga(name = "approves", version = 1, input = i64)]
impl Approves {
    #[step(call, compensate = cancel_hold)]
    async fn hold(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 1);
        Ok(())
    }

    #[step(signal, timeout = "24h")]
    fn approval(&self) -> Signal<bool> {
        Signal::wait()
    }

    #[step(call, compensate = none)]
    async fn decide(&self, _call: &Call, approval: &bool) -> StepResult<()> {
        if *approval { Ok(()) } else { Err(reject("refused")) }
    }

    #[compensate]
    async fn cancel_hold(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

#[test]
fn a_signal_that_comes_in_time_or_not() {
    for approved in [true, false] {
        let explorer = explore(Shop::default()).saga(|shop| Approves(shop.clone()), &7);
        let report = booked(stands(explorer.signal(Approves::APPROVAL, &approved)), 1).never_parked().check();
        assert!(report.is_exhaustive());
    }
}

struct Parent(Handle<Shop>);

#[saga(name = "parent", version = 1, input = i64)]
impl Parent {
    #[step(child)]
    fn trip(&self, input: &i64) -> Child<Leg> {
        Child::new(input)
    }

    #[step(call, compensate = cancel_hotel)]
    async fn hotel(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 1);
        Ok(())
    }

    #[step(call, compensate = none)]
    async fn check(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    #[compensate]
    async fn cancel_hotel(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

struct Leg(Handle<Shop>);

#[saga(name = "leg", version = 1, input = i64)]
impl Leg {
    #[step(call, compensate = cancel_train)]
    async fn train(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 2);
        Ok(())
    }

    #[step(call, compensate = cancel_seat)]
    async fn seat(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 3);
        Ok(())
    }

    #[compensate]
    async fn cancel_train(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn cancel_seat(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

#[test]
fn a_child_that_is_undone_with_its_parent() {
    let explorer = explore(Shop::default()).saga(|shop| Parent(shop.clone()), &7).child(|shop| Leg(shop.clone()));
    holds!(booked(stands_one(explorer), 3).never_parked());
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

struct Detour(Handle<Shop>);

#[saga(name = "detour", version = 1, input = i64)]
impl Detour {
    #[step(call, savepoint, compensate = cancel_hold)]
    async fn hold(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 1);
        Ok(())
    }

    #[step(call, compensate = cancel_fast, alternate = slow)]
    async fn fast(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 2);
        Ok(())
    }

    #[step(call, after = hold, compensate = cancel_slow)]
    async fn slow(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 3);
        Ok(())
    }

    #[step(call, after = fast, compensate = none)]
    async fn check(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    #[compensate]
    async fn cancel_hold(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn cancel_fast(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn cancel_slow(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

#[test]
fn a_detour_from_a_savepoint() {
    holds!(booked(stands_one(explore(Shop::default()).saga(|shop| Detour(shop.clone()), &7)), 2).never_parked());
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

struct Probes(Handle<Shop>);

#[saga(name = "probes", version = 1, input = i64)]
impl Probes {
    #[step(call, compensate = refund, probe = find)]
    async fn charge(&self, call: &Call, input: &i64) -> StepResult<i64> {
        self.0.book(call, *input);
        Ok(*input)
    }

    #[step(call, compensate = none)]
    async fn check(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    /// That it did not happen is a promise: whatever still comes is turned away.
    #[probe]
    async fn find(&self, call: &Call) -> StepResult<Option<i64>> {
        let found = self.0.with(|shop| shop.booked.get(call.step_key()).copied());
        if found.is_none() {
            self.0.cancel(call);
        }
        Ok(found)
    }

    #[compensate]
    async fn refund(&self, call: &Call, charge: &i64) -> StepResult<()> {
        assert_eq!(*charge, 7);
        self.0.cancel(call);
        Ok(())
    }
}

#[test]
fn an_unknown_step_that_is_found_out_about() {
    holds!(booked(stands(explore(Shop::default()).saga(|shop| Probes(shop.clone()), &7)), 1).never_parked());
}

struct Late(Handle<Shop>);

#[saga(name = "late", version = 1, input = i64, deadline = "1h")]
impl Late {
    #[step(call, delay = "10m", compensate = cancel_hold)]
    async fn hold(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 1);
        Ok(())
    }

    #[step(signal)]
    fn approval(&self) -> Signal<()> {
        Signal::wait()
    }

    #[step(call, retry(attempts = 2), compensate = cancel_room)]
    async fn room(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 2);
        Ok(())
    }

    #[compensate]
    async fn cancel_hold(&self, call: &Call) -> StepResult<()> {
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
fn a_delay_and_a_deadline() {
    let explorer = explore(Shop::default()).saga(|shop| Late(shop.clone()), &7).signal(Late::APPROVAL, &());
    let report = booked(stands(explorer), 2).never_parked().check();
    assert!(report.is_exhaustive());
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
