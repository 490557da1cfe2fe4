//! Other ways to find out what is new in an outbox: those that others use, and why we do not.

use stateright::{Model, Property};

use super::database::{Database, Defaults, Row, Step};
use super::lane::{IN_ORDER, NOTHING_IS_LOST};

/// What is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `seq > cursor`.
    Seq,
    /// The same, of transactions older than every open one.
    SeqBelowXmin,
    /// The same, as far as there is no gap; one is passed over when the row behind it is older than every open transaction.
    SeqWithoutGaps,
    /// `(xid, seq) > cursor`, of transactions older than every open one.
    XidSeqBelowXmin,
    /// Rows that are not marked as published.
    Flag,
    /// The same, of transactions older than every open one.
    FlagBelowXmin,
    /// The same as `Flag`, one at a time, with `for update skip locked`.
    FlagSkipLocked,
}

#[derive(Debug, Clone)]
pub(crate) struct Naive {
    pub(crate) rule: Rule,
    /// The key of each writer's event.
    pub(crate) keys: &'static str,
    pub(crate) relays: usize,
    /// A transaction may write something before it locks its key.
    pub(crate) writes_first: bool,
}

impl Naive {
    pub(crate) const ONE_RELAY: Self = Self { rule: Rule::Flag, keys: "aab", relays: 1, writes_first: true };
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    db: Database,
    /// By `(seq, 0)`, or by `(xid, seq)`.
    cursor: (i64, i64),
    marked: Vec<bool>,
    /// What each relay has fetched and not published yet.
    fetched: Vec<Vec<Row>>,
    /// First deliveries.
    published: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Writer(usize, Step),
    Fetch(usize),
    PublishAndMark(usize),
    PublishAndCrash(usize),
}

impl Naive {
    fn new_rows(&self, world: &World, relay: usize) -> Vec<Row> {
        let xmin = world.db.xmin();
        let mut rows = world.db.rows();
        let is_marked = |row: &Row| world.marked[row.writer];
        let is_locked = |row: &Row| (0..self.relays).any(|it| it != relay && world.fetched[it].contains(row));
        match self.rule {
            Rule::Seq => rows.retain(|row| self.place(*row) > world.cursor),
            Rule::SeqBelowXmin => rows.retain(|row| self.place(*row) > world.cursor && row.xid < xmin),
            Rule::SeqWithoutGaps => {
                rows.retain(|row| self.place(*row) > world.cursor);
                let mut last = world.cursor.0;
                let whole = rows.iter().take_while(|row| {
                    let before = std::mem::replace(&mut last, row.seq);
                    row.seq == before + 1 || row.xid < xmin
                });
                let whole = whole.count();
                rows.truncate(whole);
            }
            Rule::XidSeqBelowXmin => {
                rows.retain(|row| self.place(*row) > world.cursor && row.xid < xmin);
                rows.sort_unstable_by_key(|row| self.place(*row));
            }
            Rule::Flag => rows.retain(|row| !is_marked(row)),
            Rule::FlagBelowXmin => rows.retain(|row| !is_marked(row) && row.xid < xmin),
            Rule::FlagSkipLocked => {
                rows.retain(|row| !is_marked(row) && !is_locked(row));
                rows.truncate(1);
            }
        }
        rows
    }

    fn place(&self, row: Row) -> (i64, i64) {
        if self.rule == Rule::XidSeqBelowXmin { (row.xid as i64, row.seq) } else { (row.seq, 0) }
    }

    fn publish(&self, world: &mut World, relay: usize, mark: bool) {
        for row in std::mem::take(&mut world.fetched[relay]) {
            if !world.published.contains(&row.writer) {
                world.published.push(row.writer);
            }
            if mark {
                world.marked[row.writer] = true;
                world.cursor = world.cursor.max(self.place(row));
            }
        }
    }
}

impl Model for Naive {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let writers = self.keys.len();
        vec![World {
            db: Database::new(writers),
            cursor: (0, 0),
            marked: vec![false; writers],
            fetched: vec![Vec::new(); self.relays],
            published: Vec::new(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let mut steps = world.db.steps(self.keys, Defaults::XidFirst);
        steps.retain(|(_, step)| self.writes_first || *step != Step::WriteSomething);
        actions.extend(steps.into_iter().map(|(writer, step)| Action::Writer(writer, step)));
        for relay in 0..self.relays {
            if !world.fetched[relay].is_empty() {
                actions.extend([Action::PublishAndMark(relay), Action::PublishAndCrash(relay)]);
            } else if !self.new_rows(world, relay).is_empty() {
                actions.push(Action::Fetch(relay));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Writer(writer, step) => world.db.take(writer, step),
            Action::Fetch(relay) => world.fetched[relay] = self.new_rows(&world, relay),
            Action::PublishAndMark(relay) => self.publish(&mut world, relay, true),
            Action::PublishAndCrash(relay) => self.publish(&mut world, relay, false),
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_IS_LOST, |naive: &Self, world: &World| {
                let finds_nothing =
                    |relay: usize| world.fetched[relay].is_empty() && naive.new_rows(world, relay).is_empty();
                let is_at_rest = world.db.is_quiet() && (0..naive.relays).all(finds_nothing);
                !is_at_rest || world.db.is_published(&world.published)
            }),
            Property::always(IN_ORDER, |naive: &Self, world: &World| {
                world.db.is_in_order(naive.keys, &world.published)
            }),
        ]
    }
}
