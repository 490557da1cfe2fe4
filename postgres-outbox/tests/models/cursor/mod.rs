//! The outbox cursor, against writers that are in every state of their transactions.
//!
//! What a read makes of the position, [`Position::after`](amends_postgres::cursor::Position::after), and what the lane
//! remembers, [`Progress`](amends_postgres::cursor::Progress), are the real ones. What the reading statement returns is written
//! down once more in `lane.rs`: that is SQL.

mod database;
mod lane;
mod naive;

use crate::check::{breaks, holds};
use database::Defaults;
use lane::{Floor, IN_ORDER, Lane, NOTHING_IS_LOST};
use naive::{Naive, Rule};

#[test]
fn the_snapshot_cursor_loses_nothing_and_keeps_the_order_of_each_key() {
    holds(Lane { crashes: 0, ..Lane::RIGHT }, 100_000);
}

#[test]
fn a_crash_in_a_pass_through_a_backlog_loses_nothing_either() {
    holds(Lane { page: 2, ..Lane::RIGHT }, 10_000);
}

#[test]
fn an_older_floor_is_always_safe() {
    holds(Lane { floor: Floor::Nothing, page: 2, crashes: 0, ..Lane::RIGHT }, 10_000);
}

#[test]
fn seq_before_xid_loses_events() {
    breaks(Lane { defaults: Defaults::SeqFirst, crashes: 0, ..Lane::RIGHT }, NOTHING_IS_LOST);
}

#[test]
fn a_floor_of_the_same_read_loses_events() {
    breaks(Lane { floor: Floor::OfTheSameRead, keys: "ab", ..Lane::RIGHT }, NOTHING_IS_LOST);
}

#[test]
fn a_floor_of_the_read_before_loses_events_if_the_cursor_did_not_move_in_between() {
    breaks(Lane { floor: Floor::OfTheReadBefore, keys: "ab", ..Lane::RIGHT }, NOTHING_IS_LOST);
}

#[test]
fn rows_of_transactions_that_were_open_are_lost_unless_they_are_looked_up() {
    breaks(Lane { reads_late_rows: false, keys: "ab", ..Lane::RIGHT }, NOTHING_IS_LOST);
}

#[test]
fn a_plain_sequence_cursor_loses_events() {
    breaks(Naive { rule: Rule::Seq, ..Naive::ONE_RELAY }, NOTHING_IS_LOST);
}

#[test]
fn a_sequence_cursor_below_the_oldest_open_transaction_loses_events() {
    breaks(Naive { rule: Rule::SeqBelowXmin, ..Naive::ONE_RELAY }, NOTHING_IS_LOST);
}

#[test]
fn a_sequence_cursor_that_waits_at_gaps_loses_events() {
    breaks(Naive { rule: Rule::SeqWithoutGaps, ..Naive::ONE_RELAY }, NOTHING_IS_LOST);
}

#[test]
fn a_cursor_by_xid_and_seq_below_the_oldest_open_transaction_breaks_the_order() {
    breaks(Naive { rule: Rule::XidSeqBelowXmin, ..Naive::ONE_RELAY }, IN_ORDER);
}

/// Which an application cannot promise for all of its transactions.
#[test]
fn it_would_be_right_if_every_transaction_locked_its_key_before_its_first_write() {
    holds(Naive { rule: Rule::XidSeqBelowXmin, writes_first: false, ..Naive::ONE_RELAY }, 1_000);
}

#[test]
fn flags_below_the_oldest_open_transaction_break_the_order() {
    breaks(Naive { rule: Rule::FlagBelowXmin, ..Naive::ONE_RELAY }, IN_ORDER);
}

#[test]
fn two_relays_that_skip_locked_rows_break_the_order() {
    breaks(Naive { rule: Rule::FlagSkipLocked, keys: "aa", relays: 2, writes_first: true }, IN_ORDER);
}

/// It is right, but every row is written twice.
#[test]
fn flags_lose_nothing_and_keep_the_order() {
    holds(Naive { rule: Rule::Flag, ..Naive::ONE_RELAY }, 5_000);
}
