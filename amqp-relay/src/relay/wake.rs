//! When an idle relay looks again: after a pause that doubles, or when it hears that there is something.

use std::time::Duration;

use amends::store::BellListener;
use tokio::time::{Instant, sleep_until};

/// The first pause after work.
const SHORTEST: Duration = Duration::from_millis(2);
/// The longest pause while nobody tells what others commit.
const LONGEST_WITHOUT_HINTS: Duration = Duration::from_millis(100);

pub(super) struct Wake {
    bell: BellListener,
    poll: Duration,
    pause: Duration,
    /// Since when there is nothing to do.
    idle_since: Option<Instant>,
}

impl Wake {
    pub(super) fn new(bell: BellListener, poll: Duration) -> Self {
        Self { bell, poll, pause: SHORTEST, idle_since: None }
    }

    /// Something was found, and more may follow.
    pub(super) fn busy(&mut self) {
        self.pause = SHORTEST;
        self.idle_since = None;
    }

    /// Resolves when it is time to look, within `at_most`. One that is dropped and called again goes on where it was.
    pub(super) async fn up(&mut self, at_most: Duration) {
        let longest = if self.bell.is_reliable() { self.poll } else { self.poll.min(LONGEST_WITHOUT_HINTS) };
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        self.pause = self.pause.min(longest);
        tokio::select! {
            () = sleep_until(since + self.pause.min(at_most)) => self.pause *= 2,
            () = self.bell.rung() => self.pause = SHORTEST,
        }
        self.idle_since = None;
    }
}

#[cfg(test)]
mod tests {
    use amends::store::Bell;
    use tokio::time::timeout;

    use super::*;

    const HARDLY_EVER: Duration = Duration::from_mins(10);

    #[tokio::test(start_paused = true)]
    async fn while_nobody_tells_it_looks_ten_times_a_second_however_long_its_poll() {
        let bell = Bell::default();
        let mut wake = Wake::new(bell.listen(), HARDLY_EVER);
        let began = Instant::now();
        for _ in 0..20 {
            wake.up(Duration::MAX).await;
        }
        assert!(began.elapsed() > Duration::from_secs(1), "it slows down");
        assert!(began.elapsed() < Duration::from_secs(2), "but not beyond 100 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn while_others_tell_its_pauses_grow_to_the_poll_and_it_is_woken() {
        let bell = Bell::default();
        bell.set_reliable(true);
        let mut wake = Wake::new(bell.listen(), HARDLY_EVER);
        while timeout(Duration::from_mins(1), wake.up(Duration::MAX)).await.is_ok() {}
        bell.ring();
        timeout(Duration::from_millis(10), wake.up(Duration::MAX)).await.expect("it is woken");
        timeout(Duration::from_millis(10), wake.up(Duration::MAX)).await.expect("and looks again soon");
    }

    #[tokio::test(start_paused = true)]
    async fn other_work_does_not_put_the_next_look_off() {
        let bell = Bell::default();
        bell.set_reliable(true);
        let mut wake = Wake::new(bell.listen(), Duration::from_millis(500));
        for _ in 0..20 {
            wake.up(Duration::MAX).await;
        }
        let began = Instant::now();
        while timeout(Duration::from_millis(250), wake.up(Duration::MAX)).await.is_err() {}
        assert!(began.elapsed() <= Duration::from_millis(501), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_due_before_the_poll() {
        let bell = Bell::default();
        bell.set_reliable(true);
        let mut wake = Wake::new(bell.listen(), HARDLY_EVER);
        let most = Duration::from_millis(500);
        for _ in 0..20 {
            timeout(most + Duration::from_millis(1), wake.up(most)).await.expect("in time");
        }
    }
}
