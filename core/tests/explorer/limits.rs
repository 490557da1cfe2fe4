//! What the explorer says when it cannot explore, and how one schedule is run again.
#![allow(clippy::unused_async, reason = "real steps await other services")]

use amends::testing::{Budget, Handle, explore};
use amends::{Call, Request, Signal, StepError, StepResult, saga};

use crate::shop::{Desk, Shop};

struct Two(Handle<Shop>);

#[saga(name = "two", version = 1, input = ())]
impl Two {
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
}

#[test]
fn beyond_its_budget_it_samples_and_says_so() {
    let report = explore(Shop::default())
        .saga(|shop| Two(shop.clone()), &())
        .crashes(2)
        .zombies(1)
        .budget(Budget::Runs(100))
        .when_completed("both are booked", |it| it.world.booked.len() == 2)
        .check();
    assert!(!report.is_exhaustive());
    assert!(report.to_string().contains("NOT EXHAUSTIVE"), "{report}");
}

#[test]
fn sampling_finds_a_mistake_too() {
    let violation = explore(Shop::default())
        .saga(|shop| Two(shop.clone()), &())
        .budget(Budget::Runs(1))
        .rejections(0)
        .when_completed("three are booked", |it| it.world.booked.len() == 3)
        .run()
        .unwrap_err();
    assert!(violation.broken().contains("three are booked"));
}

#[test]
fn with_the_same_world_and_faults_the_same_schedule_is_found() {
    let find = || {
        let explorer = explore(Shop::default()).saga(|shop| Two(shop.clone()), &()).crashes(1).transient(1);
        explorer.when_compensated("never", |_| false).run().unwrap_err()
    };
    let (once, again) = (find(), find());
    assert_eq!(once.to_string(), again.to_string());
    assert_eq!(once.faults(), 1, "{once}");
}

struct Waits;

#[saga(name = "waits", version = 1, input = ())]
impl Waits {
    #[step(signal)]
    fn approval(&self) -> Signal<()> {
        Signal::wait()
    }
}

#[test]
fn a_saga_that_waits_for_what_nobody_sends_is_a_mistake() {
    let violation = explore(()).saga(|_| Waits, &()).run().unwrap_err();
    assert!(violation.broken().contains("`approval` waits for ever"), "{violation}");
}

struct Tries;

#[saga(name = "tries", version = 1, input = ())]
impl Tries {
    #[step(call, pivot, retry(attempts = forever))]
    async fn never(&self, _call: &Call) -> StepResult<()> {
        Err(StepError::retry("not today"))
    }
}

#[test]
fn a_saga_that_tries_for_ever_is_a_mistake() {
    let violation = explore(()).saga(|_| Tries, &()).rejections(0).run().unwrap_err();
    assert!(violation.broken().contains("it does not end"), "{violation}");
}

#[derive(serde::Serialize, serde::Deserialize, amends::Message)]
#[message(name = "tell")]
struct Tell;

struct Tells;

#[saga(name = "tells", version = 1, input = ())]
impl Tells {
    #[step(call, pivot, probe = paid)]
    async fn pay(&self, _call: &Call) -> StepResult<()> {
        Ok(())
    }

    #[step(request)]
    fn tell(&self) -> Request<Tell, ()> {
        Request::new(Tell)
    }

    #[probe]
    async fn paid(&self, _call: &Call) -> StepResult<Option<()>> {
        Ok(None)
    }
}

#[test]
fn nothing_is_refused_behind_the_pivot() {
    let explorer = explore(()).saga(|_| Tells, &()).participant(|_, _: &Tell, _| Some(Ok(())));
    let report = explorer.crashes(1).duplicates(1).never_parked().check();
    assert!(report.is_exhaustive());
}
