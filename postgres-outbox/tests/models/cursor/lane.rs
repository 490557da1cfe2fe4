//! The snapshot cursor: a relay reads pages ahead, publishes them, and moves the cursor past each. It may crash between.

use std::collections::VecDeque;

use amends_postgres::cursor::{Position, Progress, Read, Snapshot};
use stateright::{Model, Property};

use super::database::{Database, Defaults, Parsed, Row, Step};

/// With which value of the sequence a snapshot is paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floor {
    /// One that was read before a move that committed before the snapshot was taken: what [`Progress`] does.
    Lagged,
    /// None at all: every row of a later transaction is looked at.
    Nothing,
    /// The one that the same statement returned.
    OfTheSameRead,
    /// The one that the statement before returned, whether or not the cursor moved in between.
    OfTheReadBefore,
}

#[derive(Debug, Clone)]
pub(crate) struct Lane {
    /// The key of each writer's event.
    pub(crate) keys: &'static str,
    pub(crate) page: usize,
    pub(crate) floor: Floor,
    pub(crate) defaults: Defaults,
    /// The read looks up the transactions that were open in the cursor's snapshot.
    pub(crate) reads_late_rows: bool,
    pub(crate) crashes: u8,
}

impl Lane {
    pub(crate) const RIGHT: Self = Self {
        keys: "aab",
        page: 1,
        floor: Floor::Lagged,
        defaults: Defaults::XidFirst,
        reads_late_rows: true,
        crashes: 1,
    };
}

/// Pages that are read before the first of them is settled.
const AHEAD: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    db: Database,
    /// The cursor's row.
    cursor: Position,
    progress: Progress,
    /// The sequence's value at the latest read, for [`Floor::OfTheReadBefore`].
    value_before: i64,
    /// A statement that has its snapshot, and so its rows, but has not looked at the sequence yet.
    reading: Option<(Snapshot, Vec<Row>)>,
    pages: VecDeque<Page>,
    /// First deliveries.
    published: Vec<usize>,
    crashes: u8,
    published_twice: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Page {
    rows: Vec<Row>,
    after: Position,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Writer(usize, Step),
    BeginToRead,
    FinishReading,
    PublishAndMove,
    /// So many of the pages that were read are published.
    PublishAndCrash(usize),
}

pub(crate) const NOTHING_IS_LOST: &str = "nothing is lost";
pub(crate) const IN_ORDER: &str = "the order of a key is that of its commits";
pub(crate) const ONCE: &str = "nothing is published twice without a crash";

impl Lane {
    /// The statement in `cursor/read.rs`.
    fn rows(&self, db: &Database, position: &Position) -> Vec<Row> {
        let prev = Parsed::new(&position.prev);
        let pass = position.pass.as_ref().map(|pass| (Parsed::new(&pass.snapshot), pass.seq));
        let is_in_pass =
            |row: &Row| pass.as_ref().is_none_or(|(snapshot, seq)| row.seq > *seq && snapshot.sees(row.xid));
        let is_fresh = |row: &Row| row.seq > position.floor && row.xid >= prev.xmax;
        let is_late = |row: &Row| self.reads_late_rows && prev.xip.contains(&row.xid);
        db.rows().into_iter().filter(|row| is_in_pass(row) && (is_fresh(row) || is_late(row))).take(self.page).collect()
    }

    fn finish_reading(&self, world: &mut World) {
        let Some((snapshot, rows)) = world.reading.take() else { return };
        let (last_seq, full) = (rows.last().map(|row| row.seq), rows.len() == self.page);
        let read = Read { snapshot, last_seq, full };
        let value = world.db.sequence();
        let after = match self.floor {
            Floor::Lagged => world.progress.read(&read, value),
            other => {
                let value = match other {
                    Floor::OfTheSameRead => value,
                    Floor::OfTheReadBefore => world.value_before,
                    _ => 0,
                };
                let position = world.progress.position();
                let after = position.after(&read, Some(value));
                let moves = after != *position;
                world.progress = Progress::at(after.clone()).far(1);
                moves.then_some(after)
            }
        };
        world.value_before = if self.floor == Floor::OfTheReadBefore { value } else { 0 };
        world.pages.extend(after.map(|after| Page { rows, after }));
    }

    fn publish(world: &mut World, rows: &[Row]) {
        for row in rows {
            if !world.published.contains(&row.writer) {
                world.published.push(row.writer);
            } else if world.crashes == 0 {
                world.published_twice = true;
            }
        }
    }

    fn publish_and_move(world: &mut World) {
        let Some(Page { rows, after }) = world.pages.pop_front() else { return };
        Self::publish(world, &rows);
        world.cursor = after;
        world.db.commit_another();
        world.progress.moved();
    }

    fn crash(world: &mut World, published: usize) {
        let pages = std::mem::take(&mut world.pages);
        pages.iter().take(published).for_each(|page| Self::publish(world, &page.rows));
        world.reading = None;
        // The next one takes the lane.
        let value = world.db.sequence();
        world.db.commit_another();
        world.progress = Progress::at(world.cursor.clone()).taken_at(value).far(1);
        world.value_before = 0;
        world.crashes += 1;
    }

    /// The relay, alone, until it finds nothing more.
    fn finish(&self, mut world: World) -> World {
        loop {
            while !world.pages.is_empty() {
                Self::publish_and_move(&mut world);
            }
            world.reading = Some((world.db.snapshot(), self.rows(&world.db, world.progress.position())));
            self.finish_reading(&mut world);
            if world.pages.is_empty() {
                return world;
            }
        }
    }
}

impl Model for Lane {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            db: Database::new(self.keys.len()),
            cursor: Position::start(),
            progress: Progress::at(Position::start()).far(1),
            value_before: 0,
            reading: None,
            pages: VecDeque::new(),
            published: Vec::new(),
            crashes: 0,
            published_twice: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let steps = world.db.steps(self.keys, self.defaults);
        actions.extend(steps.into_iter().map(|(writer, step)| Action::Writer(writer, step)));
        match world.reading {
            Some(_) => actions.push(Action::FinishReading),
            None if world.pages.len() < AHEAD => actions.push(Action::BeginToRead),
            None => {}
        }
        // A connection does one thing at a time.
        if !world.pages.is_empty() && world.reading.is_none() {
            actions.push(Action::PublishAndMove);
        }
        if world.crashes < self.crashes {
            actions.extend((1..=world.pages.len()).map(Action::PublishAndCrash));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Writer(writer, step) => world.db.take(writer, step),
            Action::BeginToRead => {
                world.reading = Some((world.db.snapshot(), self.rows(&world.db, world.progress.position())));
            }
            Action::FinishReading => self.finish_reading(&mut world),
            Action::PublishAndMove => Self::publish_and_move(&mut world),
            Action::PublishAndCrash(pages) => Self::crash(&mut world, pages),
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_IS_LOST, |lane: &Self, world: &World| {
                let is_at_rest = world.db.is_quiet() && world.pages.is_empty() && world.reading.is_none();
                !is_at_rest || {
                    let end = lane.finish(world.clone());
                    end.db.is_published(&end.published)
                }
            }),
            Property::always(IN_ORDER, |lane: &Self, world: &World| world.db.is_in_order(lane.keys, &world.published)),
            Property::always(ONCE, |_, world: &World| !world.published_twice),
            Property::sometimes("a pass through a backlog is under way", |_, world: &World| {
                world.cursor.pass.is_some()
            }),
        ]
    }
}
