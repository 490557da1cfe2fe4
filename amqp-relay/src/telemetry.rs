//! The names of all metrics of the relay and the consumers.

/// Messages that the broker has taken.
pub const PUBLISHED: &str = "amends_relay_published_total";
/// Messages that the broker refused, by `verdict`.
pub const REFUSED: &str = "amends_relay_refused_total";
/// Seconds from the commit of a message's row, or nearly, to its confirm.
pub const DELAY_SECONDS: &str = "amends_relay_delay_seconds";
/// Connections to the broker that had to be made anew.
pub const RECONNECTS: &str = "amends_relay_reconnects_total";
/// 1 while this relay has a connection to the broker and finds there what it needs, else 0.
pub const CONNECTED: &str = "amends_relay_connected";
/// Of how many lanes the broker takes no messages now, for want of memory or disk.
pub const BLOCKED: &str = "amends_relay_blocked";
/// How many lanes this relay reads.
pub const ACTIVE: &str = "amends_relay_active";
/// Messages not published yet, by `lane`.
pub const LAG_ROWS: &str = "amends_outbox_lag_rows";
/// Age of the oldest message that is not published yet, by `lane`.
pub const LAG_SECONDS: &str = "amends_outbox_lag_seconds";
/// Messages held because the broker refused them or one before them, by `lane`.
pub const HELD: &str = "amends_outbox_held";
/// Keys that wait for an operator, by `lane`.
pub const PARKED: &str = "amends_outbox_parked";
/// Partitions of the database that were old enough to be dropped.
pub const PARTITIONS_DROPPED: &str = "amends_partitions_dropped_total";
/// Messages that a consumer is done with, by `consumer` and `result`: `handled`, `duplicate`, or `rejected`, which is a dead
/// letter. `retried` is an attempt that failed; `kept` is a dead letter that could not be sent yet.
pub const HANDLED: &str = "amends_consumer_handled_total";
/// Seconds that an attempt to handle messages took, by `consumer`.
pub const PROCESS_SECONDS: &str = "amends_consumer_process_seconds";
/// Messages that are being handled now, by `consumer`.
pub const IN_FLIGHT: &str = "amends_consumer_in_flight";
/// Replies to requests of sagas, by `result`: `appended`, `ended`, or `unknown` and `malformed`, which become dead letters;
/// `retried` is one that will be tried again.
pub const REPLIES: &str = "amends_replies_total";
