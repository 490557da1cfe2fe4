//! Moments that are taken for the same have the same future: with and without pruning the numbers agree.
#![allow(clippy::unused_async, reason = "real steps await other services")]

use amends::testing::{Explorer, Handle, TestTx, World, explore, explore_with_database};
use amends::{Call, StepResult, saga};

use crate::shop::{Desk, Shop};

struct Mixed(Handle<Shop>);

/// A tx step, a call that must be known, and one that need not.
#[saga(name = "mixed", version = 1, input = ())]
impl Mixed {
    #[step(tx, compensate = give_back)]
    async fn take(&self, tx: &mut TestTx<i64>) -> StepResult<i64> {
        *tx.database() -= 1;
        Ok(1)
    }

    #[step(call, compensate = undo_a, retry(attempts = 2))]
    async fn a(&self, call: &Call) -> StepResult<u8> {
        self.0.book(call, 1);
        Ok(1)
    }

    #[step(call, compensate = undo_b)]
    async fn b(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 2);
        Ok(())
    }

    #[compensate]
    async fn give_back(&self, tx: &mut TestTx<i64>, take: &i64) -> StepResult<()> {
        *tx.database() += take;
        Ok(())
    }

    #[compensate]
    async fn undo_a(&self, call: &Call, a: &u8) -> StepResult<()> {
        assert_eq!(*a, 1);
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_b(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

struct Fork(Handle<Shop>);

#[saga(name = "fork", version = 1, input = ())]
impl Fork {
    #[step(call, after = start, compensate = undo_left)]
    async fn left(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 1);
        Ok(())
    }

    #[step(call, after = start, compensate = undo_right)]
    async fn right(&self, call: &Call) -> StepResult<()> {
        self.0.book(call, 2);
        Ok(())
    }

    #[compensate]
    async fn undo_left(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }

    #[compensate]
    async fn undo_right(&self, call: &Call) -> StepResult<()> {
        self.0.cancel(call);
        Ok(())
    }
}

fn mixed() -> Explorer<World<Shop, i64>> {
    explore_with_database(Shop::default(), 5).saga(|shop| Mixed(shop.clone()), &())
}

fn fork() -> Explorer<World<Shop, ()>> {
    explore(Shop::default()).saga(|shop| Fork(shop.clone()), &())
}

#[test]
fn with_and_without_pruning_there_are_as_many_schedules() {
    let pruned = [
        mixed().crashes(2).check(),
        mixed().crashes(1).transient(1).check(),
        mixed().unknown(1).zombies(1).check(),
        fork().crashes(1).check(),
        fork().rejections(1).zombies(1).transient(1).check(),
    ];
    let whole = [
        mixed().crashes(2).without_pruning().check(),
        mixed().crashes(1).transient(1).without_pruning().check(),
        mixed().unknown(1).zombies(1).without_pruning().check(),
        fork().crashes(1).without_pruning().check(),
        fork().rejections(1).zombies(1).transient(1).without_pruning().check(),
    ];
    for (pruned, whole) in pruned.iter().zip(&whole) {
        assert!(whole.is_exhaustive(), "{whole}");
        assert_eq!(pruned.schedules(), whole.schedules());
        assert_eq!(whole.schedules(), u128::from(whole.runs()));
        assert!(pruned.states() < whole.states());
    }
}

#[test]
fn with_and_without_pruning_the_simplest_mistake_is_as_simple() {
    let wrong = |explorer: Explorer<World<Shop, i64>>| {
        let explorer = explorer.crashes(2).transient(1);
        explorer.when_compensated("b was never booked", |it| it.world.cancelled.len() < 2).run().unwrap_err()
    };
    let (pruned, whole) = (wrong(mixed()), wrong(mixed().without_pruning()));
    assert_eq!((pruned.faults(), pruned.timeline().len()), (whole.faults(), whole.timeline().len()));
}
