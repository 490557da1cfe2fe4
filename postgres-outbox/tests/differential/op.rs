//! What can be asked of a store. Numbers are places in the cast; a saga's place may be of one that was not started yet.

use std::time::Duration;

use amends::Status;
use proptest::option;
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Start {
        saga: New,
        owner: Option<usize>,
    },
    StartAgain {
        place: usize,
    },
    Transaction {
        sagas: Vec<New>,
        commits: bool,
    },
    Append(Write),
    Repeat {
        place: usize,
    },
    Claim {
        worker: usize,
        limit: usize,
        forward: usize,
        name: usize,
        version: u32,
    },
    ClaimAll {
        worker: usize,
        knows: bool,
    },
    Adopt {
        worker: usize,
        all: bool,
    },
    Retire {
        worker: usize,
    },
    Heartbeat {
        worker: usize,
        lease: Duration,
    },
    /// By its owner, if by nobody else.
    Release {
        worker: Option<usize>,
        saga: usize,
        pause: Option<Duration>,
    },
    Lock {
        saga: usize,
    },
    PassLock {
        saga: usize,
    },
    Schedule {
        name: usize,
        timetable: bool,
        at: usize,
    },
    Overdue,
    StartScheduled {
        saga: New,
        at: usize,
        next: Option<usize>,
    },
    Load {
        saga: usize,
    },
    Ended,
    Parked {
        cause: Option<usize>,
        after: Option<usize>,
        limit: usize,
    },
    Live {
        names: usize,
        fingerprints: usize,
        after: Option<usize>,
        limit: usize,
    },
}

/// A saga to be started.
#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) name: usize,
    pub(crate) version: u32,
    pub(crate) key: Option<usize>,
    pub(crate) input: &'static str,
    pub(crate) lock: Option<(usize, bool)>,
    pub(crate) priority: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) saga: usize,
    /// Counted from the next sequence number.
    pub(crate) offset: i64,
    pub(crate) writer: usize,
    pub(crate) head: Option<Change>,
    pub(crate) messages: usize,
    pub(crate) child: Option<New>,
    pub(crate) wakes: Option<usize>,
    pub(crate) in_step: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) status: Status,
    pub(crate) pause: Option<Duration>,
    pub(crate) release: bool,
    pub(crate) cause: Option<usize>,
}

pub(crate) fn any() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (new(), option::of(0..4_usize)).prop_map(|(saga, owner)| Op::Start { saga, owner }),
        1 => saga().prop_map(|place| Op::StartAgain { place }),
        2 => (prop::collection::vec(new(), 1..4), any_bool(0.8))
            .prop_map(|(sagas, commits)| Op::Transaction { sagas, commits }),
        14 => write().prop_map(Op::Append),
        1 => (0..8_usize).prop_map(|place| Op::Repeat { place }),
        3 => (0..4_usize, 0..4_usize, 0..4_usize, 0..2_usize, 1..3_u32)
            .prop_map(|(worker, limit, forward, name, version)| Op::Claim { worker, limit, forward, name, version }),
        2 => (0..4_usize, any_bool(0.7)).prop_map(|(worker, knows)| Op::ClaimAll { worker, knows }),
        1 => (0..3_usize, any_bool(0.9)).prop_map(|(worker, all)| Op::Adopt { worker, all }),
        1 => (0..4_usize).prop_map(|worker| Op::Retire { worker }),
        1 => (0..4_usize, prop_oneof![Just(Duration::ZERO), Just(Duration::MAX)])
            .prop_map(|(worker, lease)| Op::Heartbeat { worker, lease }),
        5 => (option::weighted(0.2, 0..4_usize), saga(), pause())
            .prop_map(|(worker, saga, pause)| Op::Release { worker, saga, pause }),
        2 => saga().prop_map(|saga| Op::Lock { saga }),
        1 => saga().prop_map(|saga| Op::PassLock { saga }),
        1 => (0..2_usize, any_bool(0.8), 0..4_usize)
            .prop_map(|(name, timetable, at)| Op::Schedule { name, timetable, at }),
        1 => Just(Op::Overdue),
        1 => (new(), 0..4_usize, option::of(0..4_usize))
            .prop_map(|(saga, at, next)| Op::StartScheduled { saga, at, next }),
        2 => saga().prop_map(|saga| Op::Load { saga }),
        1 => Just(Op::Ended),
        1 => (option::of(0..3_usize), option::of(saga()), 0..5_usize)
            .prop_map(|(cause, after, limit)| Op::Parked { cause, after, limit }),
        1 => (0..4_usize, 0..4_usize, option::of(saga()), 0..5_usize)
            .prop_map(|(names, fingerprints, after, limit)| Op::Live { names, fingerprints, after, limit }),
    ]
}

fn any_bool(probability: f64) -> impl Strategy<Value = bool> {
    prop::bool::weighted(probability)
}

/// Few, so that much happens to each.
fn saga() -> impl Strategy<Value = usize> {
    0..5_usize
}

fn pause() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![
        1 => Just(None),
        3 => Just(Some(Duration::ZERO)),
        1 => Just(Some(Duration::from_hours(1))),
        1 => Just(Some(Duration::MAX)),
    ]
}

const INPUTS: [&str; 5] =
    ["null", r#"{"a":1,"b":[1,2]}"#, r#"{ "b": [1.0, 2], "a": 1e0 }"#, r#"{"a":1,"b":[2,1]}"#, "1"];

fn new() -> impl Strategy<Value = New> {
    let lock = option::weighted(0.3, (0..2_usize, any_bool(0.4)));
    let key = option::weighted(0.4, 0..2_usize);
    (0..2_usize, 1..3_u32, key, prop::sample::select(&INPUTS[..]), lock, 0..3_usize)
        .prop_map(|(name, version, key, input, lock, priority)| New { name, version, key, input, lock, priority })
}

fn write() -> impl Strategy<Value = Write> {
    let offset = prop_oneof![12 => Just(0_i64), 1 => Just(-1), 1 => Just(-2), 1 => Just(1), 1 => Just(5)];
    // A child with a key or a lock is refused, so most have none.
    let child =
        new().prop_flat_map(|new| prop_oneof![9 => Just(New { key: None, lock: None, ..new.clone() }), 1 => Just(new)]);
    let (head, child, wakes) =
        (option::weighted(0.7, change()), option::weighted(0.15, child), option::weighted(0.5, saga()));
    (saga(), offset, 0..4_usize, head, 0..3_usize, child, wakes, any_bool(0.3)).prop_map(
        |(saga, offset, writer, head, messages, child, wakes, in_step)| Write {
            saga,
            offset,
            writer,
            head,
            messages,
            child,
            wakes,
            in_step,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let status = prop_oneof![
        4 => Just(Status::Running),
        3 => Just(Status::Compensating),
        2 => Just(Status::Parked),
        1 => Just(Status::Completed),
        1 => Just(Status::Compensated),
    ];
    (status, pause(), any_bool(0.7), option::of(0..3_usize)).prop_map(|(status, pause, release, cause)| Change {
        status,
        pause,
        release,
        cause,
    })
}
