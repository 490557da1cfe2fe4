//! How far a lane of the outbox is published. Pure: no SQL, no clock.
//!
//! New is what a statement can see and the position's snapshot could not. A snapshot's xmax is the latest *completed*
//! transaction plus one, so an open transaction at or above it may already hold a low `seq`: a snapshot may be paired
//! with a sequence value only if that was read before a transaction that committed before the snapshot was taken.
//! The cursor's own move is such a transaction.

/// A `pg_snapshot` in its text form, `xmin:xmax:xip,…`.
pub type Snapshot = String;

/// What has been published so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// Everything that this snapshot could see is settled.
    pub prev: Snapshot,
    /// Every row of a transaction at or above the xmax of `prev` has a higher seq.
    pub floor: i64,
    /// The pass through a backlog that is under way.
    pub pass: Option<Pass>,
}

/// A pass through more rows than fit into a page. All its pages are read as of its first snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pass {
    /// What the pass goes through.
    pub snapshot: Snapshot,
    /// The last row that was read.
    pub seq: i64,
    /// The floor that belongs to `snapshot`.
    pub floor: i64,
}

/// What one read saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The snapshot of the reading statement.
    pub snapshot: Snapshot,
    /// The last row of the page; `None` if there was none.
    pub last_seq: Option<i64>,
    /// The page is full, so there may be more.
    pub full: bool,
}

impl Position {
    /// Before everything.
    pub fn start() -> Self {
        Self { prev: "1:1:".to_owned(), floor: 0, pass: None }
    }

    /// The position once this read is settled. `known` is a value of the sequence that was read before a move of the
    /// cursor that committed before this read; an older one is always safe.
    #[must_use]
    pub fn after(&self, read: &Read, known: Option<i64>) -> Self {
        let floor = known.unwrap_or(0).max(self.floor);
        let (snapshot, pass_floor) = match &self.pass {
            Some(pass) => (pass.snapshot.clone(), pass.floor),
            None if read.last_seq.is_none() => return self.clone(),
            None => (read.snapshot.clone(), floor),
        };
        match read.last_seq {
            Some(seq) if read.full => Self {
                prev: self.prev.clone(),
                floor: self.floor,
                pass: Some(Pass { snapshot, seq, floor: pass_floor }),
            },
            _ => Self { prev: snapshot, floor: pass_floor, pass: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(snapshot: &str, last_seq: Option<i64>, full: bool) -> Read {
        Read { snapshot: snapshot.into(), last_seq, full }
    }

    #[test]
    fn an_idle_read_moves_nothing() {
        let position = Position::start();
        assert_eq!(position.after(&read("5:5:", None, false), Some(9)), position);
    }

    #[test]
    fn a_fresh_sequence_value_is_never_paired_with_the_snapshot_of_its_own_read() {
        let after = Position::start().after(&read("5:5:", Some(3), false), None);
        assert_eq!(after, Position { prev: "5:5:".into(), floor: 0, pass: None });
    }

    #[test]
    fn a_pass_keeps_its_first_snapshot_and_floor_to_the_end() {
        let first = Position::start().after(&read("5:5:", Some(3), true), Some(2));
        assert_eq!(first.pass, Some(Pass { snapshot: "5:5:".into(), seq: 3, floor: 2 }));
        let second = first.after(&read("9:9:", Some(6), true), Some(8));
        assert_eq!(second.pass, Some(Pass { snapshot: "5:5:".into(), seq: 6, floor: 2 }));
        let end = second.after(&read("11:11:", None, false), Some(10));
        assert_eq!(end, Position { prev: "5:5:".into(), floor: 2, pass: None });
    }
}
