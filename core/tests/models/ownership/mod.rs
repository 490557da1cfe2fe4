//! Who may move a saga: workers that die or only seem to, adoption, and a journal whose primary key is the fence.
//!
//! [`decide`](amends::machine::decide) and [`State::apply`](amends::state::State::apply) are the real ones.

mod saga;
mod services;
mod workers;

use crate::check::{breaks, holds};
use workers::{COMPENSATED, COMPLETED, FENCED, Workers};

#[test]
fn a_saga_ends_with_all_its_effects_or_with_none_whoever_dies() {
    holds(Workers { crashes: 1, ..Workers::RIGHT }, 10_000);
}

#[test]
fn a_cancellation_from_outside_changes_nothing_of_that() {
    holds(Workers { cancels: 1, ..Workers::RIGHT }, 10_000);
}

#[test]
fn three_workers_that_lose_it_to_each_other_change_nothing_of_that() {
    holds(Workers { how_many: 3, ..Workers::RIGHT }, 10_000);
}

#[test]
fn an_adoption_that_is_not_journalled_fences_nobody() {
    breaks(Workers { adoption_is_journalled: false, ..Workers::RIGHT }, FENCED);
}

#[test]
fn an_adoption_that_is_not_journalled_leaves_live_effects() {
    breaks(Workers { adoption_is_journalled: false, ..Workers::RIGHT }, COMPENSATED);
}

#[test]
fn a_rejection_after_an_adoption_that_is_taken_as_definite_leaves_live_effects() {
    breaks(Workers { machine_hears_of_adoptions: false, ..Workers::RIGHT }, COMPENSATED);
}

#[test]
fn a_rejection_of_a_later_attempt_that_is_taken_as_definite_leaves_live_effects() {
    breaks(Workers { machine_hears_of_attempts: false, ..Workers::RIGHT }, COMPENSATED);
}

#[test]
fn an_append_without_the_fence_lets_a_stale_worker_change_the_saga() {
    breaks(Workers { appends_are_fenced: false, ..Workers::RIGHT }, FENCED);
}

#[test]
fn an_append_without_the_fence_completes_sagas_that_lack_an_effect() {
    breaks(Workers { appends_are_fenced: false, ..Workers::RIGHT }, COMPLETED);
}

#[test]
fn services_without_tombstones_keep_live_effects() {
    breaks(Workers { services_keep_tombstones: false, ..Workers::RIGHT }, COMPENSATED);
}
