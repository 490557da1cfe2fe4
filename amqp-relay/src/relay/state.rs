//! What a relay is doing, for health checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::telemetry;

/// What a relay is doing, for health checks.
#[derive(Debug)]
pub struct RelayState(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    lanes: usize,
    disconnected: Option<Since>,
    /// The lanes whose connection the broker blocks.
    blocked: BTreeMap<i16, Since>,
    /// The lanes that it has and cannot read, or not publish.
    failing: BTreeMap<i16, Since>,
}

#[derive(Debug, Clone)]
struct Since {
    when: Instant,
    reason: String,
}

/// What keeps a relay from publishing. It goes on by itself once that is over: a restart helps nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// There is no connection to the broker, or what the relay needs is not there.
    Disconnected {
        /// For how long.
        lasts: Duration,
        /// What came of the last attempt.
        reason: String,
    },
    /// The broker takes no messages, for want of memory or disk.
    Blocked {
        /// For how long.
        lasts: Duration,
        /// What the broker says.
        reason: String,
    },
    /// It cannot read one of its lanes, or not move its cursor.
    Failing {
        /// Which.
        lane: i16,
        /// For how long.
        lasts: Duration,
        /// What came of the last attempt.
        reason: String,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected { lasts, reason } => {
                write!(f, "no connection to the broker for {} s: {reason}", lasts.as_secs())
            }
            Self::Blocked { lasts, reason } => {
                write!(f, "the broker has taken no messages for {} s: {reason}", lasts.as_secs())
            }
            Self::Failing { lane, lasts, reason } => {
                write!(f, "lane {lane} has failed for {} s: {reason}", lasts.as_secs())
            }
        }
    }
}

impl Default for RelayState {
    fn default() -> Self {
        let disconnected = Some(Since::now("it has not connected yet".to_owned()));
        Self(RwLock::new(State { disconnected, ..State::default() }))
    }
}

impl RelayState {
    /// It has a connection to the broker.
    pub fn is_connected(&self) -> bool {
        self.read(|state| state.disconnected.is_none())
    }

    /// It reads a lane at least; otherwise it stands by.
    pub fn is_active(&self) -> bool {
        self.lanes() > 0
    }

    /// How many lanes it reads.
    pub fn lanes(&self) -> usize {
        self.read(|state| state.lanes)
    }

    /// The broker takes no messages from it, for want of memory or disk.
    pub fn is_blocked(&self) -> bool {
        self.read(|state| !state.blocked.is_empty())
    }

    /// What keeps it from publishing; `None` if nothing does.
    pub fn trouble(&self) -> Option<Trouble> {
        self.read(|state| {
            if let Some(Since { when, reason }) = state.disconnected.clone() {
                return Some(Trouble::Disconnected { lasts: when.elapsed(), reason });
            }
            let longest = state.blocked.values().min_by_key(|since| since.when).cloned();
            let blocked = longest.map(|Since { when, reason }| Trouble::Blocked { lasts: when.elapsed(), reason });
            blocked.or_else(|| {
                let (&lane, Since { when, reason }) = state.failing.iter().min_by_key(|(_, since)| since.when)?;
                Some(Trouble::Failing { lane, lasts: when.elapsed(), reason: reason.clone() })
            })
        })
    }

    /// These are its lanes now.
    pub(super) fn set_lanes(&self, lanes: &BTreeSet<i16>) {
        self.write(|state| {
            state.lanes = lanes.len();
            state.failing.retain(|lane, _| lanes.contains(lane));
        });
    }

    pub(super) fn connected(&self) {
        self.write(|state| state.disconnected = None);
        metrics::gauge!(telemetry::CONNECTED).set(1.0);
    }

    pub(super) fn disconnected(&self, why: &impl fmt::Display) {
        let reason = why.to_string();
        self.write(|state| match &mut state.disconnected {
            Some(since) => since.reason = reason,
            None => state.disconnected = Some(Since::now(reason)),
        });
        metrics::gauge!(telemetry::CONNECTED).set(0.0);
    }

    pub(super) fn lane_fails(&self, lane: i16, why: &impl fmt::Display) {
        let reason = why.to_string();
        self.write(|state| match state.failing.get_mut(&lane) {
            Some(since) => since.reason = reason,
            None => _ = state.failing.insert(lane, Since::now(reason)),
        });
    }

    pub(super) fn lane_works(&self, lane: i16) {
        if self.read(|state| state.failing.contains_key(&lane)) {
            self.write(|state| _ = state.failing.remove(&lane));
        }
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        metrics::gauge!(telemetry::BLOCKED).set(state.blocked.len() as f64);
    }
}

/// Whether the broker takes messages on the connection of a lane; open when it is made and when it is dropped.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    relay: &'a RelayState,
    lane: i16,
}

impl<'a> Gate<'a> {
    pub(super) fn new(relay: &'a RelayState, lane: i16) -> Self {
        Self { relay, lane }
    }

    pub(super) fn close(&self, reason: &str) {
        self.relay.write(|state| _ = state.blocked.entry(self.lane).or_insert_with(|| Since::now(reason.to_owned())));
    }

    pub(super) fn open(&self) {
        self.relay.write(|state| _ = state.blocked.remove(&self.lane));
    }

    /// The lane has moved its cursor or kept its lease.
    pub(super) fn works(&self) {
        self.relay.lane_works(self.lane);
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.open();
    }
}

impl Since {
    fn now(reason: String) -> Self {
        Self { when: Instant::now(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_the_worst_there_is_and_says_what_was_last_known() {
        let state = RelayState::default();
        let said = |state: &RelayState| state.trouble().map(|trouble| trouble.to_string()).unwrap_or_default();
        assert!(said(&state).contains("not connected yet"));
        state.disconnected(&"refused");
        assert!(said(&state).contains("refused"));
        state.connected();
        assert_eq!(state.trouble(), None);
        let gate = Gate::new(&state, 1);
        gate.close("low on memory");
        assert!(said(&state).contains("low on memory") && state.is_blocked());
        state.disconnected(&"gone");
        assert!(said(&state).contains("gone"));
        state.connected();
        drop(gate);
        assert_eq!(state.trouble(), None);
        state.lane_fails(2, &"first");
        state.lane_fails(2, &"then");
        assert!(said(&state).starts_with("lane 2 has failed for 0 s: then"), "{}", said(&state));
        Gate::new(&state, 2).works();
        assert_eq!(state.trouble(), None);
        state.lane_fails(2, &"again");
        state.set_lanes(&BTreeSet::from([1]));
        assert_eq!(state.trouble(), None, "it is somebody else's now");
    }
}
