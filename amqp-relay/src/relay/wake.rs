//! When an idle relay looks again: after a pause that doubles, or when it hears that there is something.

use std::time::Duration;

use amends::store::BellListener;
use tokio::time::sleep;

/// The first pause after work.
const SHORTEST: Duration = Duration::from_millis(2);
/// The longest pause while nobody tells what others commit.
const LONGEST_WITHOUT_HINTS: Duration = Duration::from_millis(100);

pub(super) struct Wake {
    bell: BellListener,
    poll: Duration,
    pause: Duration,
}

impl Wake {
    pub(super) fn new(bell: BellListener, poll: Duration) -> Self {
        Self { bell, poll, pause: SHORTEST }
    }

    /// Something was found, and more may follow.
    pub(super) fn busy(&mut self) {
        self.pause = SHORTEST;
    }

    /// Resolves when it is time to look, within `at_most`. It can be dropped.
    pub(super) async fn up(&mut self, at_most: Duration) {
        let longest = if self.bell.is_reliable() { self.poll } else { self.poll.min(LONGEST_WITHOUT_HINTS) };
        self.pause = self.pause.min(longest);
        tokio::select! {
            () = sleep(self.pause.min(at_most)) => self.pause *= 2,
            () = self.bell.rung() => self.pause = SHORTEST,
        }
    }
}
