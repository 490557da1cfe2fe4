//! The messages, and a relay's window of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use amends::{MessageId, OutboxMessage};
use amends_postgres::cursor::{Page, Sequenced};
use chrono::DateTime;
use uuid::Uuid;

use super::relays::CHANNELS;
use crate::relay::wave::Verdict;
use crate::relay::window::{Left, Ordering, Wave, Window};

/// The message of that seq, which counts from 1.
pub(super) fn message(keys: &str, seq: i64) -> Sequenced {
    let message = OutboxMessage {
        id: MessageId(Uuid::from_u128(seq as u128)),
        topic: "t".into(),
        name: "t".into(),
        key: key(keys, seq).map(String::from),
        content_type: String::new(),
        headers: BTreeMap::new(),
        payload: Vec::new(),
    };
    Sequenced { seq, created_at: DateTime::UNIX_EPOCH, message }
}

/// `-` is none.
pub(super) fn key(keys: &str, seq: i64) -> Option<char> {
    keys.chars().nth(seq as usize - 1).filter(|key| *key != '-')
}

/// What was done to a window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// A page was read, while those keys were held.
    Push {
        seqs: Vec<i64>,
        held: BTreeSet<char>,
    },
    /// For which channel.
    TakeWave(usize),
    /// Which messages of a wave were published.
    Judge {
        wave: usize,
        published: Vec<bool>,
    },
    Settle,
}

/// A window as the list of what was done to it since it was last empty: the checker cannot hash the real one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Log(Vec<Op>);

/// The real window, and what is done to it.
pub(super) struct Open {
    ops: Vec<Op>,
    keys: &'static str,
    most: usize,
    pub(super) window: Window,
    waves: Vec<Option<Wave>>,
}

impl Log {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn open(&self, keys: &'static str, ordering: Ordering, most: usize) -> Open {
        let (window, ops, waves) = (Window::new(ordering, CHANNELS), Vec::new(), Vec::new());
        let mut open = Open { ops, keys, most, window, waves };
        for op in &self.0 {
            match op.clone() {
                Op::Push { seqs, held } => open.push(seqs, held),
                Op::TakeWave(channel) => drop(open.take_wave(channel)),
                Op::Judge { wave, published } => open.judge(wave, published),
                Op::Settle => drop(open.settle()),
            }
        }
        open
    }
}

impl Open {
    pub(super) fn push(&mut self, seqs: Vec<i64>, held: BTreeSet<char>) {
        let page = Page::of(seqs.iter().map(|seq| message(self.keys, *seq)).collect());
        self.window.push(page, |key| key.chars().all(|key| held.contains(&key)), |_| "e".into());
        self.ops.push(Op::Push { seqs, held });
    }

    /// The next wave's number, and its messages.
    pub(super) fn take_wave(&mut self, channel: usize) -> Option<(usize, Vec<i64>)> {
        let pending = self.window.pending();
        let wave = self.window.next_wave(self.most, channel, |_| None);
        let seqs = wave.as_ref().map(|wave| wave.messages().map(|message| message.seq).collect());
        // Without a wave, too: what waits behind a refused message is left.
        if wave.is_some() || self.window.pending() < pending {
            self.ops.push(Op::TakeWave(channel));
            self.waves.push(wave);
        }
        seqs.map(|seqs| (self.waves.len() - 1, seqs))
    }

    pub(super) fn judge(&mut self, wave: usize, published: Vec<bool>) {
        let verdict = |published: &bool| if *published { Verdict::Published } else { Verdict::Refused(String::new()) };
        self.window.judge(self.waves[wave].take().unwrap(), published.iter().map(verdict).collect());
        self.ops.push(Op::Judge { wave, published });
    }

    pub(super) fn settle(&mut self) -> Option<(Arc<Page>, Vec<Left>)> {
        let settled = self.window.settled()?;
        self.ops.push(Op::Settle);
        Some(settled)
    }

    /// Nothing need be remembered of a window that is empty again.
    pub(super) fn close(self) -> Log {
        if self.window.is_empty() { Log::default() } else { Log(self.ops) }
    }
}
