//! The tests that run on every carrier, once more on raw Ethernet: on the loopback interface of a namespace.

use std::process::Command;

use crate::needs::{Need, skip_without};

/// Set where the tests run inside the namespace.
pub(crate) const INSIDE: &str = "CABO_TEST_ON_ETHERNET";

/// Those that take their URLs from the list of carriers.
const TESTS: [&str; 9] = [
    "messages_of_every_size_come_back_in_order_on_every_carrier",
    "what_was_sent_before_the_end_arrives",
    "one_some_and_all_are_sent_to",
    "requests::replies_find_their_requests_in_any_order",
    "requests::a_request_that_nobody_awaits_any_more_is_cancelled_at_the_server",
    "requests::who_has_ended_its_half_still_gets_its_answers",
    "same_port::a_stranger_is_refused_and_hears_why_and_who_is_allowed_is_not",
    "hostile::what_is_not_messages_is_reset_and_does_not_disturb_them",
    "hostile::a_flood_of_small_messages_loses_none_and_leaves_others_their_turn",
];

#[test]
fn the_same_holds_on_raw_ethernet() {
    let needs = [Need::Program("unshare"), Need::Program("ip"), Need::Namespaces];
    if std::env::var_os(INSIDE).is_some() || skip_without(&needs) {
        return;
    }
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user", "--net", "sh", "-c"]);
    inside.arg("ip link set lo up && exec \"$0\" --test-threads 1 --exact \"$@\"");
    inside.arg(std::env::current_exe().unwrap()).args(TESTS).env(INSIDE, "1");
    let done = inside.output().unwrap();
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{out}{}", String::from_utf8_lossy(&done.stderr));
    assert!(out.contains(&format!("{} passed", TESTS.len())), "{out}");
}
