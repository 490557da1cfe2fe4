//! Twelve sagas without a mistake: in each, nothing is found.
#![allow(clippy::unused_async, reason = "real steps await other services")]

use amends::testing::{Environment, Explorer, World};

use crate::shop::Shop;

mod steps;
mod waits;
mod ways_back;

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

use holds;
