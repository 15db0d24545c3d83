//! Every model holds, and notices the bug that is planted in it.

use models::models::cache::{Told, fill};
use models::models::store::Sharing::{Shared, Solo};
use models::models::{pulse, queue, store, watch};

/// The number of orders, for whoever adds them up.
fn count(orders: u64) {
    println!("orders: {orders}");
}

#[test]
fn every_caller_is_answered_whoever_leads() {
    count(queue::hand_over(None));
    count(queue::lead_for_others(None));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_leader_that_hands_over_to_nobody_is_noticed() {
    queue::hand_over(Some("forget-to-wake"));
}

#[test]
#[should_panic(expected = "deadlock")]
fn an_answer_that_wakes_nobody_is_noticed() {
    queue::lead_for_others(Some("lost-notify-one"));
}

#[test]
fn every_caller_outside_a_full_queue_is_let_in() {
    count(queue::room(None));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_full_queue_that_lets_nobody_in_is_noticed() {
    queue::room(Some("lost-notify-all"));
}

#[test]
fn a_panic_of_the_writer_leaves_nobody_waiting() {
    count(queue::panic(None));
}

#[test]
#[should_panic(expected = "the leader forgets the answer")]
fn a_panic_that_leaves_somebody_waiting_is_noticed() {
    queue::panic(Some("no-answer"));
}

#[test]
fn a_request_that_is_taken_back_is_committed_or_refused() {
    count(queue::take_back(None));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_that_is_lost_beside_a_request_taken_back_is_noticed() {
    queue::take_back(Some("forget-to-wake"));
}

#[test]
fn a_value_from_before_a_write_is_not_cached_after_it() {
    for told in [Told::Publish, Told::Forget, Told::Clear] {
        count(fill(told, None));
    }
}

#[test]
#[should_panic(expected = "a value from before")]
fn a_value_that_is_cached_too_late_is_noticed() {
    fill(Told::Forget, Some("fill-anyway"));
}

#[test]
fn an_acknowledged_write_is_read() {
    for sharing in [Solo, Shared] {
        count(store::own_write(sharing, None));
    }
}

#[test]
#[should_panic(expected = "a value from before")]
fn a_value_from_before_an_acknowledged_write_is_noticed() {
    store::own_write(Shared, Some("fill-anyway"));
}

#[test]
fn no_read_sees_half_a_commit() {
    for sharing in [Solo, Shared] {
        count(store::two_keys(sharing, None));
    }
}

#[test]
#[should_panic(expected = "was read after")]
fn a_store_without_a_stamp_is_noticed() {
    store::two_keys(Solo, Some("no-stamp"));
}

#[test]
fn commits_of_other_processes_are_read() {
    count(store::other_process(None));
}

#[test]
#[should_panic(expected = "a value from before")]
fn commits_of_other_processes_that_stay_unseen_are_noticed() {
    store::other_process(Some("no-stamp"));
}

#[test]
#[should_panic(expected = "a value from before")]
fn a_cache_that_others_do_not_reach_is_noticed() {
    store::other_process(Some("stale-cache"));
}

#[test]
#[should_panic(expected = "half a commit")]
fn keys_that_are_read_one_after_the_other_are_noticed() {
    store::two_keys(Shared, Some("read-two-snapshots"));
}

#[test]
#[should_panic(expected = "an acknowledged write is not read")]
fn a_write_that_the_cache_is_not_told_of_is_noticed() {
    store::own_write(Shared, Some("unpublished"));
}

#[test]
fn after_an_unknown_commit_the_database_is_read() {
    for stored in [true, false] {
        count(store::unknown_commit(stored, None));
    }
}

#[test]
fn closing_answers_everybody_and_nothing_is_committed_afterwards() {
    for sharing in [Solo, Shared] {
        count(store::close(sharing, None));
    }
}

#[test]
#[should_panic(expected = "a commit after closing")]
fn a_commit_after_closing_is_noticed() {
    store::close(Shared, Some("write-after-close"));
}

#[test]
fn callers_that_left_are_answered_whoever_leads() {
    count(queue::left(None));
    count(queue::all_left(None));
    count(queue::left_alone(None));
}

#[test]
#[should_panic(expected = "who was answered and who asked")]
fn requests_that_are_left_to_nobody_are_noticed() {
    queue::all_left(Some("forget-to-lead"));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_caller_that_waits_for_a_leader_that_nobody_wakes_is_noticed() {
    queue::left(Some("forget-to-wake"));
}

#[test]
fn a_panic_of_the_writer_leaves_no_caller_that_left_unanswered() {
    count(queue::left_panic(None));
}

#[test]
fn a_wait_never_sleeps_through_a_commit() {
    count(pulse::commit(None));
    count(pulse::forget(None));
}

#[test]
#[should_panic(expected = "a wait slept through a commit")]
fn a_commit_that_does_not_see_who_waits_is_noticed() {
    pulse::commit(Some("no-fence"));
}

#[test]
#[should_panic(expected = "a wait slept through a commit")]
fn a_commit_that_changes_no_stamp_is_noticed() {
    pulse::forget(Some("no-stamp"));
}

#[test]
fn closing_the_store_wakes_whoever_waits() {
    count(pulse::stop(None));
}

#[test]
fn whoever_asks_a_watch_is_told() {
    count(watch::commit(None));
    count(watch::close(None));
    count(watch::close_session(None));
}

#[test]
#[should_panic(expected = "answers to one who asked")]
fn a_watch_that_misses_a_commit_is_noticed() {
    watch::commit(Some("no-stamp"));
}
