//! Wakes the loops of this process that would otherwise wait for their next poll.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What is rung sooner after the last time that was heard is heard together, at the end of it.
const TOGETHER: Duration = Duration::from_millis(5);

/// Says to whoever listens that there may be work. It is a hint: polling is the guarantee. Clones are the same bell.
///
/// ```
/// # use amends::store::Bell;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let bell = Bell::default();
/// let mut listener = bell.listen();
/// bell.ring();
/// listener.rung().await;
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<watch::Sender<Rung>>);

#[derive(Debug, Clone, Copy, Default)]
struct Rung {
    times: u64,
    reliable: bool,
}

impl Bell {
    /// Wakes all who listen.
    pub fn ring(&self) {
        self.0.send_modify(|rung| rung.times = rung.times.wrapping_add(1));
    }

    /// Says whether it is rung for all that happens, and not only for what happens in this process. Who listens is woken by
    /// a change: what was hinted at meanwhile is lost.
    pub fn set_reliable(&self, reliable: bool) {
        self.0.send_if_modified(|rung| std::mem::replace(&mut rung.reliable, reliable) != reliable);
    }

    /// Hears what is rung from now on.
    pub fn listen(&self) -> BellListener {
        BellListener { rung: self.0.subscribe(), deaf_until: Instant::now() }
    }
}

/// Hears a [`Bell`], at most once in 5 ms.
#[derive(Debug)]
pub struct BellListener {
    rung: watch::Receiver<Rung>,
    deaf_until: Instant,
}

impl BellListener {
    /// Resolves once it was rung since the last time; never, if the bell is gone. Nothing is lost when it is dropped.
    pub async fn rung(&mut self) {
        sleep_until(self.deaf_until).await;
        if self.rung.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.deaf_until = Instant::now() + TOGETHER;
    }

    /// Whether whoever listens may look less often by himself.
    pub fn is_reliable(&self) -> bool {
        self.rung.borrow().reliable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_rings_at_once_are_heard_as_two() {
        let bell = Bell::default();
        let mut listener = bell.listen();
        let mut heard = 0;
        bell.ring();
        while tokio::time::timeout(Duration::from_millis(100), listener.rung()).await.is_ok() {
            heard += 1;
            if heard == 1 {
                (0..100).for_each(|_| bell.ring());
            }
        }
        assert_eq!(heard, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_rung_while_nobody_waits_is_heard_later() {
        let bell = Bell::default();
        let mut listener = bell.listen();
        bell.ring();
        let _ = tokio::time::timeout(Duration::ZERO, std::future::pending::<()>()).await;
        listener.rung().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_listens_is_woken_when_the_bell_becomes_unreliable() {
        let bell = Bell::default();
        bell.set_reliable(true);
        let mut listener = bell.listen();
        assert!(listener.is_reliable());
        bell.set_reliable(false);
        listener.rung().await;
        assert!(!listener.is_reliable());
    }
}
