//! Tests for sagas, and for the stores that keep them. With the feature `testing`; no server is needed.
//!
//! [`explore`] runs a saga through every crash, every outcome of its steps and every late effect, and shows the shortest
//! schedule that breaks what must hold. `docs/TESTING.md` is the guide.

pub mod conformance;
mod digest;
mod environment;
mod explore;
mod explorer;
mod harness;
mod journal;
mod moves;
mod options;
mod perform;
mod report;
mod search;
mod simulation;
mod stage;
mod timeline;
mod world;

pub use environment::{Environment, Facts};
pub use explore::{explore, explore_with_database};
pub use explorer::{Budget, Explorer, When};
pub use harness::{Harness, Run};
pub use moves::Effect;
pub use report::{Report, Violation};
pub use world::{Handle, Scene, SceneRule, TestTx, World};
