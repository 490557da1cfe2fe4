//! The list of the rules, and a test for each.

use super::{
    Backend, adoptions, claims, effects, heads, journal, lists, locks, nudges, payloads, releases, schedules, starts,
    steps,
};

/// Calls a macro with every rule, by the file that holds it. A rule that is not listed here is dead code, which rustc reports.
#[doc(hidden)]
#[macro_export]
macro_rules! __with_store_rules {
    ([$($call:tt)*] $($argument:tt)*) => {
        $($call)*! { $($argument)*
            journal {
                an_append_reads_back_as_it_was_written
                an_append_at_a_seq_that_is_taken_changes_nothing_at_all
                a_gap_is_a_conflict_and_changes_nothing
                an_append_to_a_saga_that_is_not_there_is_a_conflict
                an_append_repeated_is_answered_as_the_first_time
                of_appends_at_the_same_seq_at_once_exactly_one_wins
            }
            heads {
                a_head_change_moves_the_status_and_an_append_without_leaves_it
                a_saga_is_due_when_its_head_says_so
                a_pause_beyond_the_calendar_is_a_long_one
                what_was_made_due_from_outside_stays_due_until_it_has_ended
                an_owner_stays_until_it_lets_go
            }
            effects {
                messages_come_with_the_append_and_in_order
                a_child_is_there_if_and_only_if_its_append_is
                a_child_with_a_business_key_or_a_lock_or_that_is_there_is_refused
                a_wake_and_a_head_change_of_one_saga_at_once_leave_it_due
                many_that_end_at_once_wake_one_parent
            }
            starts {
                a_saga_is_loaded_as_it_was_started
                the_same_key_and_an_equal_input_give_the_same_saga
                the_same_key_and_another_input_are_a_conflict
                a_business_key_starts_one_saga_however_many_ask_at_once
                a_start_in_a_transaction_is_there_once_that_commits
                a_start_in_a_transaction_that_rolls_back_never_was
                one_transaction_knows_the_keys_that_it_took_itself
                a_start_whose_answer_was_lost_can_be_repeated
                a_saga_started_for_a_worker_is_its_own
            }
            claims {
                only_what_is_due_and_nobodys_is_claimed
                those_that_compensate_come_first_then_those_of_a_higher_priority
                of_one_kind_those_that_wait_longest_come_first
                of_two_kinds_the_one_that_is_named_first_comes_first
                a_claim_takes_no_more_than_its_limits
                a_claim_that_is_full_does_not_hold_up_another
                only_registered_names_and_versions_are_claimed
                two_workers_never_get_the_same_saga
                a_hint_finds_what_is_due_and_nothing_else
            }
            nudges {
                an_owner_hears_of_what_was_written_from_outside
                a_sweep_hands_back_what_its_worker_does_not_know_of
            }
            releases {
                a_released_saga_is_due_when_its_worker_said
                a_release_of_what_is_not_ones_own_has_no_effect
                a_wake_that_came_meanwhile_outlives_the_release
            }
            adoptions {
                a_worker_is_lost_once_its_lease_has_run_out
                a_lease_of_any_length_is_kept
                only_the_sagas_of_the_dead_are_adopted_and_their_journals_say_so
                what_a_dead_worker_still_writes_is_fenced_off
                the_sagas_of_a_retired_worker_are_adopted_at_once
                an_adoption_takes_what_it_may_and_no_more
                two_workers_never_adopt_the_same_saga
            }
            steps {
                the_commit_of_a_step_makes_its_record_and_its_messages
                a_step_that_is_rolled_back_leaves_nothing
                a_step_that_lost_its_saga_leaves_nothing
                an_interrupted_step_can_never_commit
            }
            locks {
                a_lock_goes_from_one_saga_to_the_next_in_the_order_of_their_starts
                a_lock_is_of_one_name_and_one_key
                who_comes_late_does_not_take_the_lock_from_a_younger_one_that_has_it
                of_many_that_ask_at_once_one_gets_the_lock
                a_start_that_does_not_wait_is_refused_while_another_saga_has_the_lock
                a_key_that_is_taken_is_found_whoever_has_the_lock
                a_lock_that_is_passed_on_makes_the_next_in_line_due
            }
            schedules {
                a_schedule_is_overdue_from_its_time_on
                of_many_workers_one_starts_what_is_due
                a_scheduled_start_that_fails_is_still_due
            }
            lists {
                those_that_have_ended_or_are_not_there_are_told
                the_cause_of_parking_is_kept_while_it_is_parked
                those_that_are_live_are_listed_by_name_and_fingerprint
            }
            payloads {
                every_text_reads_back_as_it_was_written
                json_at_the_limits_reads_back
                an_append_that_cannot_be_stored_fails_alone
            }
        }
    };
}

/// Makes every rule a test of its own, on a [`Backend`].
#[macro_export]
#[doc(hidden)]
macro_rules! __store_conformance {
    ($backend:ty) => {
        $crate::__with_store_rules! { [$crate::__store_conformance] @tests $backend; }
    };
    (@tests $backend:ty; $($file:ident { $($rule:ident)* })*) => {
        $($(
            #[test]
            fn $rule() {
                $crate::testing::conformance::run::<$backend>(stringify!($rule));
            }
        )*)*
    };
}

macro_rules! names {
    ($($file:ident { $($rule:ident)* })*) => { &[$($(stringify!($rule)),*),*] };
}

macro_rules! call {
    ($backend:ident $rule_name:ident $($file:ident { $($rule:ident)* })*) => {
        match $rule_name {
            $($(stringify!($rule) => Box::pin($file::$rule::<$backend>()).await,)*)*
            other => panic!("there is no rule `{other}`"),
        }
    };
}

/// The name of every rule.
pub const RULES: &[&str] = __with_store_rules!([names]);

/// Checks one rule on an empty store.
///
/// # Panics
/// Panics if the store breaks the rule, or if there is none of this name.
pub fn run<B: Backend>(rule: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives a test its threads");
    runtime.block_on(async { __with_store_rules!([call] B rule) });
}
