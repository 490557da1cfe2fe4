//! Ways back: to the beginning, to a savepoint, or not without knowing.

use amends::testing::{Handle, explore};
use amends::{Call, StepResult, saga};

use super::{booked, holds, stands, stands_one};
use crate::shop::{Desk, Shop};

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
