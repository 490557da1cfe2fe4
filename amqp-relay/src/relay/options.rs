//! The settings of a relay.

use std::time::Duration;

use amends_postgres::Retention;

use crate::relay::Route;
use crate::relay::window::Ordering;
use crate::{ReplyQueue, Topology};

/// Settings of a relay; the defaults suit one service.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// A name for people, such as the host and process id.
    pub name: String,
    /// The exchange that it publishes to what no route sends elsewhere. `amends`.
    pub exchange: String,
    /// Where messages of certain types go; the first that fits counts. None.
    pub routes: Vec<Route>,
    /// `CloudEvents` source of its messages. `amends`.
    pub source: String,
    /// What is declared at every connection. The exchange only.
    pub topology: Topology,
    /// Where the replies to requests of sagas arrive; `None` if none are awaited. `amends.replies`.
    pub replies: Option<ReplyQueue>,
    /// Which order is kept within a key. Strict.
    pub ordering: Ordering,
    /// A relay that has not renewed for this long has lost its lanes. 10 s.
    pub lease: Duration,
    /// How many messages it reads at once. 4 000.
    pub page: usize,
    /// How many messages it publishes on a channel, at most, before it waits for their confirms; fewer while the broker is slow. 1 000.
    pub wave: usize,
    /// How long the broker may take to confirm a wave. 30 s.
    pub confirm_deadline: Duration,
    /// A message that the broker has refused this often is parked. 10.
    pub most_attempts: i32,
    /// The longest pause between two looks for messages when nothing wakes it. 500 ms; 100 ms at most while it cannot hear what
    /// others commit. What is published by SQL alone, without a hint, waits for as long.
    pub poll: Duration,
    /// How long things are kept in the database; `None` keeps them for ever, or leaves it to another process.
    pub retention: Option<Retention>,
}

impl Default for RelayOptions {
    fn default() -> Self {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "relay".into());
        Self {
            name: format!("{host}:{}", std::process::id()),
            exchange: "amends".into(),
            routes: Vec::new(),
            source: "amends".into(),
            topology: Topology { exchanges: vec!["amends".into()], ..Topology::default() },
            replies: Some(ReplyQueue::default()),
            ordering: Ordering::Strict,
            lease: Duration::from_secs(10),
            page: 4000,
            wave: 1000,
            confirm_deadline: Duration::from_secs(30),
            most_attempts: 10,
            poll: Duration::from_millis(500),
            retention: Some(Retention::default()),
        }
    }
}
