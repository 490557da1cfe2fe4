//! What a lane remembers from one statement to the next. Pure, and void with its connection.

use crate::cursor::{Pass, Position, Read, Snapshot};

/// A lane that finds nothing moves its cursor all the same when that is so many rows behind: they are of other lanes, or of a pass
/// that has ended, and it would look through them at every read.
const FAR: i64 = 5000;

/// How far a lane has read, which is ahead of what it has settled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Where the next read goes on.
    position: Position,
    /// The sequence's value at the latest read.
    read_value: Option<i64>,
    /// A value that was read before a move that has committed since.
    known_value: Option<i64>,
    /// An idle lane lags behind by so many rows at most.
    far: i64,
}

impl Progress {
    /// Nothing has been read behind this position.
    pub fn at(position: Position) -> Self {
        Self { position, read_value: None, known_value: None, far: FAR }
    }

    /// With a value of the sequence that was read before the lane was taken: to take it is a move that has committed. Without, the first
    /// pass through a backlog would end with the floor before it, and the read behind it look through all of it once more.
    #[must_use]
    pub fn taken_at(self, value: i64) -> Self {
        Self { known_value: Some(value), ..self }
    }

    /// As it is, but a lane that finds nothing moves its cursor when it is so many rows behind.
    #[must_use]
    pub fn far(self, far: i64) -> Self {
        Self { far, ..self }
    }

    /// Where the next read goes on.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Reads on to this snapshot and no further, once a pass under way has ended. The floor of an older snapshot is safe for it.
    ///
    /// `true` if everything up to there has been read.
    pub fn head_for(&mut self, meeting: &Snapshot) -> bool {
        if self.position.pass.is_none() && self.position.prev != *meeting {
            self.position.pass = Some(Pass { snapshot: meeting.clone(), seq: 0, floor: self.position.floor });
        }
        self.position.pass.is_none()
    }

    /// Takes note of a read, and of the sequence's value at it. The answer is where the cursor moves once the page is
    /// settled; `None` if it stays where it is.
    pub fn read(&mut self, read: &Read, value: i64) -> Option<Position> {
        let mut after = self.position.after(read, self.known_value);
        if after == self.position && value - self.position.floor > self.far {
            after.prev.clone_from(&read.snapshot);
            after.floor = after.floor.max(self.known_value.unwrap_or(0));
        }
        self.read_value = Some(value);
        if after == self.position {
            return None;
        }
        self.position.clone_from(&after);
        Some(after)
    }

    /// A move of the cursor has committed: what was read before it is safe to pair with any snapshot taken from now on.
    pub fn moved(&mut self) {
        self.known_value = self.read_value;
    }
}
