//! What there is to tell, and when to ask whether it has been committed. Pure.

use std::collections::HashMap;
use std::time::Duration;

use amends::store::Append;
use tokio::time::Instant;

/// A transaction is asked after at these times after each other; one that takes longer is found by polling.
const ROUNDS_MS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];
/// What is written in more transactions than this at a time is found by polling.
const MOST: usize = 4096;
/// After something was told nothing is for so long: many commits share a hint.
const TOGETHER: Duration = Duration::from_millis(5);

/// Who is to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Relays: there are messages.
    pub(crate) outbox: bool,
    /// Workers: there are sagas that are due.
    pub(crate) sagas: bool,
}

impl News {
    pub(crate) const OUTBOX: Self = Self { outbox: true, sagas: false };
    pub(crate) const SAGAS: Self = Self { outbox: false, sagas: true };

    pub(crate) fn is_some(self) -> bool {
        self.outbox || self.sagas
    }

    pub(super) fn add(&mut self, other: Self) {
        self.outbox |= other.outbox;
        self.sagas |= other.sagas;
    }
}

/// What is news once this append has been committed.
pub(crate) fn news(append: &Append) -> News {
    // A saga that is due at once and has an owner is one that was written to from outside.
    let is_due = append.head.is_some_and(|head| head.wake_in == Some(Duration::ZERO));
    News { outbox: !append.outbox.is_empty(), sagas: is_due || append.wakes.is_some() || !append.starts.is_empty() }
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    transactions: HashMap<i64, Transaction>,
    committed: News,
    echo: bool,
    /// No later than when the first of them is due.
    next: Option<Instant>,
    quiet_until: Option<Instant>,
}

#[derive(Debug)]
struct Transaction {
    news: News,
    /// Of which database it is, as long as we do not know the name of ours.
    database: Option<String>,
    at: Instant,
    round: usize,
}

/// What to ask and to tell now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) xids: Vec<i64>,
    pub(super) committed: News,
    pub(super) echo: bool,
}

/// Each answer says whether the prober must be woken, because there is something before all that it waits for.
impl Pending {
    pub(super) fn write(&mut self, xid: i64, database: Option<&str>, news: News) -> bool {
        if self.transactions.len() >= MOST && !self.transactions.contains_key(&xid) {
            return false;
        }
        let at = Instant::now() + Duration::from_millis(ROUNDS_MS[0]);
        // What is written later in a transaction begins its rounds anew.
        let transaction = self.transactions.entry(xid).or_insert_with(|| Transaction {
            news,
            database: database.map(str::to_owned),
            at,
            round: 0,
        });
        (transaction.at, transaction.round) = (at, 0);
        transaction.news.add(news);
        self.wake_at(at)
    }

    pub(super) fn commit(&mut self, news: News) -> bool {
        self.committed.add(news);
        self.wake_at(Instant::now())
    }

    pub(super) fn ask_for_echo(&mut self) -> bool {
        self.echo = true;
        self.wake_at(Instant::now())
    }

    fn wake_at(&mut self, at: Instant) -> bool {
        let is_first = self.next.is_none_or(|next| at < next);
        if is_first {
            self.next = Some(at);
        }
        is_first
    }

    /// When to take what is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = self.next?;
        Some(self.quiet_until.map_or(next, |quiet| quiet.max(next)))
    }

    /// A transaction comes back until its rounds are over.
    pub(super) fn take_due(&mut self, now: Instant) -> Due {
        let mut due = Due {
            committed: std::mem::take(&mut self.committed),
            echo: std::mem::take(&mut self.echo),
            xids: Vec::new(),
        };
        self.transactions.retain(|xid, transaction| {
            if transaction.round >= ROUNDS_MS.len() {
                return false;
            }
            if transaction.at <= now {
                due.xids.push(*xid);
                transaction.round += 1;
                let pause = ROUNDS_MS.get(transaction.round).copied().unwrap_or_default();
                transaction.at = now + Duration::from_millis(pause);
            }
            true
        });
        self.next = self.transactions.values().map(|transaction| transaction.at).min();
        due
    }

    /// It has committed or not; what it is news of.
    pub(super) fn ended(&mut self, xid: i64) -> News {
        self.transactions.remove(&xid).map(|transaction| transaction.news).unwrap_or_default()
    }

    pub(super) fn told(&mut self, now: Instant) {
        self.quiet_until = Some(now + TOGETHER);
    }

    /// Now we know what our database is called.
    pub(super) fn keep_only(&mut self, database: &str) {
        self.transactions.retain(|_, it| it.database.as_ref().is_none_or(|of| of == database));
    }

    pub(super) fn clear(&mut self) {
        *self = Self { quiet_until: self.quiet_until, ..Self::default() };
    }
}
