//! How much there is to explore.
#![allow(clippy::unused_async, reason = "real steps await other services")]

use std::time::Instant;

use amends::testing::{Explorer, Handle, World, explore};
use amends::{Call, StepResult, saga};

use crate::shop::{Desk, Shop};

pub(crate) struct Chain5(pub(crate) Handle<Shop>);

#[saga(name = "chain-5", version = 1, input = i64)]
impl Chain5 {
    #[step(call, compensate = undo_s0)]
    async fn s0(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 0);
        Ok(())
    }

    #[step(call, compensate = undo_s1)]
    async fn s1(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 1);
        Ok(())
    }

    #[step(call, compensate = undo_s2)]
    async fn s2(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 2);
        Ok(())
    }

    #[step(call, compensate = undo_s3)]
    async fn s3(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 3);
        Ok(())
    }

    #[step(call, compensate = undo_s4)]
    async fn s4(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 4);
        Ok(())
    }

    #[compensate]
    async fn undo_s0(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s1(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s2(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s3(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s4(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

pub(crate) struct Chain10(pub(crate) Handle<Shop>);

#[saga(name = "chain-10", version = 1, input = i64)]
impl Chain10 {
    #[step(call, compensate = undo_s0)]
    async fn s0(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 0);
        Ok(())
    }

    #[step(call, compensate = undo_s1)]
    async fn s1(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 1);
        Ok(())
    }

    #[step(call, compensate = undo_s2)]
    async fn s2(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 2);
        Ok(())
    }

    #[step(call, compensate = undo_s3)]
    async fn s3(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 3);
        Ok(())
    }

    #[step(call, compensate = undo_s4)]
    async fn s4(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 4);
        Ok(())
    }

    #[step(call, compensate = undo_s5)]
    async fn s5(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 5);
        Ok(())
    }

    #[step(call, compensate = undo_s6)]
    async fn s6(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 6);
        Ok(())
    }

    #[step(call, compensate = undo_s7)]
    async fn s7(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 7);
        Ok(())
    }

    #[step(call, compensate = undo_s8)]
    async fn s8(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 8);
        Ok(())
    }

    #[step(call, compensate = undo_s9)]
    async fn s9(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 9);
        Ok(())
    }

    #[compensate]
    async fn undo_s0(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s1(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s2(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s3(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s4(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s5(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s6(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s7(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s8(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_s9(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

fn five() -> Explorer<World<Shop, ()>> {
    holds(explore(Shop::default()).saga(|shop| Chain5(shop.clone()), &0), 5)
}

fn ten() -> Explorer<World<Shop, ()>> {
    holds(explore(Shop::default()).saga(|shop| Chain10(shop.clone()), &0), 10)
}

fn holds(explorer: Explorer<World<Shop, ()>>, steps: usize) -> Explorer<World<Shop, ()>> {
    explorer
        .when_completed("all is booked", move |it| it.world.booked.len() == steps)
        .when_compensated("nothing is booked", |it| it.world.booked.is_empty())
}

fn schedules(explorer: Explorer<World<Shop, ()>>) -> u128 {
    let began = Instant::now();
    let report = explorer.check();
    println!("  in {:?}", began.elapsed());
    assert!(report.is_exhaustive());
    report.schedules()
}

/// Each step runs or is refused, each compensation undoes or gets stuck; crashes before and after each effect and record.
#[test]
fn the_number_of_schedules_is_what_one_counts_by_hand() {
    let counted = |explorer: fn() -> Explorer<World<Shop, ()>>| {
        [0, 1, 2].map(|crashes| schedules(explorer().crashes(crashes).stuck_compensations(1)))
    };
    assert_eq!(counted(five), [16, 300, 3_339]);
    assert_eq!(counted(ten), [56, 1_900, 37_759]);
}

#[test]
fn without_faults_a_saga_has_one_schedule_for_each_step_that_is_refused_and_one_in_which_none_is() {
    assert_eq!(schedules(five()), 6);
    assert_eq!(schedules(five().rejections(0)), 1);
}
