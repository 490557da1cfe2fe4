//! The broker goes away and comes back.

use std::net::TcpListener;

use crate::support::private_broker::PrivateBroker;

#[tokio::test(flavor = "multi_thread")]
async fn a_private_broker_keeps_its_data_through_a_kill_and_leaves_nothing_when_it_is_dropped() {
    let mut broker = PrivateBroker::start_new();
    broker.ctl(&["add_user", "someone", "secret"]);
    broker.kill();
    broker.start();
    assert!(broker.ctl(&["list_users"]).contains("someone"));
    let (dir, address) = (broker.path(""), ("127.0.0.1", broker.port()));

    drop(broker);

    assert!(!dir.exists());
    assert!(TcpListener::bind(address).is_ok(), "nothing listens there any more");
}
