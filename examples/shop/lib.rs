//! What the three services of the example shop share.
//!
//! They are separate processes with a database each, and know of each other only what stands here: the bodies of
//! their HTTP requests ([`api`]) and the events on `RabbitMQ` ([`events`]). [`service`] is how each of them is run.
//!
//! | service | does | speaks |
//! |---|---|---|
//! | `orders` | takes orders, runs the saga `place-order` | HTTP, asks `payments`, publishes events |
//! | `payments` | charges cards once per idempotency key | HTTP |
//! | `warehouse` | keeps a ledger of what it heard | consumes events through the inbox |

pub mod api;
pub mod events;
pub mod service;
