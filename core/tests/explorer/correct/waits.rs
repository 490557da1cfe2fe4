//! Steps that wait: for a reply, a signal, another saga, or the time.

use amends::testing::{Handle, explore};
use amends::{Call, Child, Message, Rejection, Request, Signal, StepResult, reject, saga};
use serde::{Deserialize, Serialize};

use super::{booked, holds, stands, stands_one};
use crate::shop::{Desk, Shop};

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
