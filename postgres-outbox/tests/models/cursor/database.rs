//! What `PostgreSQL` does for writers of the outbox: transactions, their ids and snapshots, and a sequence.

use amends_postgres::cursor::Snapshot;

/// A transaction that writes one event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    /// Assigned by its first write.
    pub(crate) xid: Option<u64>,
    /// It holds the lock of its event's key, to the end of the transaction.
    pub(crate) locked: bool,
    pub(crate) seq: Option<i64>,
    pub(crate) end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Committed,
    RolledBack,
}

/// What a writer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Something that has nothing to do with the outbox.
    WriteSomething,
    /// By updating the aggregate's row, for example: that is a write.
    LockKey,
    /// Which is no write.
    LockKeyByAdvisoryLock,
    AssignXid,
    TakeSeq,
    End(End),
}

/// In which order an insert into the outbox evaluates its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defaults {
    XidFirst,
    SeqFirst,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    pub(crate) writers: Vec<Writer>,
    next_xid: u64,
    next_seq: i64,
    latest_completed: u64,
}

/// A row of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Row {
    pub(crate) seq: i64,
    pub(crate) xid: u64,
    pub(crate) writer: usize,
}

impl Database {
    pub(crate) fn new(writers: usize) -> Self {
        Self { writers: vec![Writer::default(); writers], next_xid: 1, next_seq: 1, latest_completed: 0 }
    }

    pub(crate) fn steps(&self, keys: &str, defaults: Defaults) -> Vec<(usize, Step)> {
        let mut steps = Vec::new();
        for (writer, it) in self.writers.iter().enumerate().filter(|(_, it)| it.end.is_none()) {
            let mut may = |step| steps.push((writer, step));
            match (it.locked, it.xid, it.seq) {
                (false, xid, _) => {
                    if xid.is_none() {
                        may(Step::WriteSomething);
                    }
                    if self.is_free(keys, writer) {
                        may(Step::LockKey);
                        if xid.is_none() {
                            may(Step::LockKeyByAdvisoryLock);
                        }
                    }
                }
                (true, None, None) if defaults == Defaults::SeqFirst => may(Step::TakeSeq),
                (true, None, _) => may(Step::AssignXid),
                (true, Some(_), None) => may(Step::TakeSeq),
                (true, Some(_), Some(_)) => {
                    may(Step::End(End::Committed));
                    may(Step::End(End::RolledBack));
                }
            }
        }
        steps
    }

    fn is_free(&self, keys: &str, writer: usize) -> bool {
        let key = |writer| keys.as_bytes()[writer];
        !self.writers.iter().enumerate().any(|(i, it)| key(i) == key(writer) && it.locked && it.end.is_none())
    }

    pub(crate) fn take(&mut self, writer: usize, step: Step) {
        if matches!(step, Step::WriteSomething | Step::LockKey | Step::AssignXid) && self.writers[writer].xid.is_none()
        {
            self.writers[writer].xid = Some(self.new_xid());
        }
        let it = &mut self.writers[writer];
        match step {
            Step::WriteSomething | Step::AssignXid => {}
            Step::LockKey | Step::LockKeyByAdvisoryLock => it.locked = true,
            Step::TakeSeq => {
                it.seq = Some(self.next_seq);
                self.next_seq += 1;
            }
            Step::End(end) => {
                it.end = Some(end);
                self.latest_completed = self.latest_completed.max(it.xid.unwrap_or(0));
            }
        }
    }

    /// A transaction of somebody else, from beginning to end.
    pub(crate) fn commit_another(&mut self) {
        self.latest_completed = self.latest_completed.max(self.new_xid());
    }

    fn new_xid(&mut self) -> u64 {
        self.next_xid += 1;
        self.next_xid - 1
    }

    /// The sequence's value, which is in no snapshot.
    pub(crate) fn sequence(&self) -> i64 {
        self.next_seq - 1
    }

    /// `pg_current_snapshot()`. Its xmax is the latest *completed* transaction plus one, not the next one to be assigned.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let xmax = self.latest_completed + 1;
        let mut open: Vec<u64> = self.open().filter(|xid| *xid < xmax).collect();
        open.sort_unstable();
        let xmin = open.first().copied().unwrap_or(xmax);
        format!("{xmin}:{xmax}:{}", open.iter().map(u64::to_string).collect::<Vec<_>>().join(","))
    }

    fn open(&self) -> impl Iterator<Item = u64> {
        self.writers.iter().filter(|it| it.end.is_none()).filter_map(|it| it.xid)
    }

    /// The oldest transaction that is open.
    pub(crate) fn xmin(&self) -> u64 {
        self.open().min().unwrap_or(self.next_xid)
    }

    /// The committed rows, by seq.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let committed = self.writers.iter().enumerate().filter(|(_, it)| it.end == Some(End::Committed));
        let mut rows: Vec<Row> =
            committed.filter_map(|(writer, it)| Some(Row { seq: it.seq?, xid: it.xid?, writer })).collect();
        rows.sort_unstable();
        rows
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.writers.iter().all(|it| it.end.is_some())
    }

    /// First deliveries of a key follow its commits, which follow its seqs: the lock is held from before the one to after
    /// the other.
    pub(crate) fn is_in_order(&self, keys: &str, published: &[usize]) -> bool {
        let key = |writer| keys.as_bytes()[writer];
        let rows = self.rows();
        rows.iter().all(|later| {
            let Some(place) = published.iter().position(|writer| *writer == later.writer) else { return true };
            let mut earlier = rows.iter().filter(|it| key(it.writer) == key(later.writer) && it.seq < later.seq);
            earlier.all(|it| published[..place].contains(&it.writer))
        })
    }

    pub(crate) fn is_published(&self, published: &[usize]) -> bool {
        self.rows().iter().all(|row| published.contains(&row.writer))
    }
}

/// A snapshot that is looked into.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) xmax: u64,
    pub(crate) xip: Vec<u64>,
}

impl Parsed {
    pub(crate) fn new(snapshot: &str) -> Self {
        let mut parts = snapshot.split(':').skip(1);
        let xmax = parts.next().unwrap().parse().unwrap();
        Self { xmax, xip: parts.next().unwrap().split(',').filter_map(|xid| xid.parse().ok()).collect() }
    }

    /// `pg_visible_in_snapshot`.
    pub(crate) fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && !self.xip.contains(&xid)
    }
}
