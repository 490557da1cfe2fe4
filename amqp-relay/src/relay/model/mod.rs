//! Model check of the relay: a takeover at any moment, with waves on their way and confirms outstanding.
//!
//! The [`Window`](super::window::Window) and the verdicts ([`decide`](super::wave::decide)) are the real ones.
#![allow(clippy::unwrap_used)]

mod broker;
#[path = "../../../../core/tests/models/check.rs"]
mod check;
mod outbox;
mod relays;

use super::window::Ordering;
use check::{breaks, holds};
use relays::{IN_ORDER, Mistake, NEVER_BACK, NOTHING_IS_LOST, Relays};

#[test]
fn a_relay_that_takes_over_from_one_that_lives_on_loses_nothing_and_keeps_the_order_of_first_deliveries() {
    holds(Relays::RIGHT, 10_000);
}

#[test]
fn a_relay_that_takes_over_from_one_that_has_died_does_so_too() {
    holds(Relays { lapses: 0, crashes: 2, keys: "aab", ..Relays::RIGHT }, 10_000);
}

#[test]
fn a_message_that_is_refused_holds_up_its_key_only() {
    holds(Relays { how_many: 1, crashes: 0, refusals: 3, keys: "aaba-", ..Relays::RIGHT }, 1_000);
}

#[test]
fn a_page_with_several_messages_of_a_key_keeps_their_order() {
    holds(Relays { page: 4, keys: "aaba", ..Relays::RIGHT }, 10_000);
}

#[test]
fn a_cursor_that_moves_before_the_confirm_loses_messages() {
    breaks(Relays { mistake: Some(Mistake::MovesBeforeTheConfirm), ..Relays::RIGHT }, NOTHING_IS_LOST);
}

#[test]
fn a_nack_that_is_taken_for_an_ack_loses_messages() {
    breaks(Relays { mistake: Some(Mistake::TakesNacksForAcks), ..Relays::RIGHT }, NOTHING_IS_LOST);
}

#[test]
fn a_return_that_is_ignored_loses_messages() {
    breaks(Relays { mistake: Some(Mistake::IgnoresReturns), ..Relays::RIGHT }, NOTHING_IS_LOST);
}

#[test]
fn a_return_that_is_taken_for_the_answer_to_the_confirm_that_carries_it_loses_messages() {
    breaks(Relays { mistake: Some(Mistake::TrustsTheConfirm), ..Relays::RIGHT }, NOTHING_IS_LOST);
}

#[test]
fn a_move_that_the_epoch_does_not_guard_takes_the_cursor_back() {
    breaks(Relays { mistake: Some(Mistake::MovesUnguarded), ..Relays::RIGHT }, NEVER_BACK);
}

#[test]
fn pipelined_messages_of_a_key_keep_their_order_while_none_is_refused() {
    holds(Relays { ordering: Ordering::Pipelined, refusals: 0, crashes: 0, keys: "aab", ..Relays::RIGHT }, 1_000);
}

/// What `ordering = "pipelined"` trades away, and what it does not.
#[test]
fn pipelined_messages_lose_their_order_when_one_is_refused() {
    breaks(Relays { ordering: Ordering::Pipelined, keys: "aab", ..Relays::RIGHT }, IN_ORDER);
}
