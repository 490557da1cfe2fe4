//! Shows how far the run is: bars on a terminal, plain lines elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use shop::service::Failure;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::customers::Placing;
use crate::world::World;

/// How long everything may take to settle after the last order: longer than any recovery.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Plain lines come less often than bars are redrawn.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// What the user sees of the run.
#[derive(Debug)]
pub(crate) struct Progress {
    orders: u64,
    begun: Instant,
    view: View,
}

#[derive(Debug)]
enum View {
    Bars { all: MultiProgress, placed: ProgressBar, ended: ProgressBar, delivered: ProgressBar },
    Lines { said_at_millis: AtomicU64 },
}

/// How far the run is.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    placed: u64,
    ended: u64,
    parked: u64,
    published: u64,
    held: u64,
    delivered: u64,
}

impl Progress {
    pub(crate) fn new(orders: u32, is_terminal: bool) -> Self {
        let orders = u64::from(orders);
        let view = if is_terminal { View::bars(orders) } else { View::Lines { said_at_millis: AtomicU64::new(0) } };
        Self { orders, begun: Instant::now(), view }
    }

    /// Says what happens, above the bars.
    pub(crate) fn say(&self, what: &str) {
        let line = format!("{:5.1} s  {what}", self.begun.elapsed().as_secs_f64());
        match &self.view {
            // A bar that cannot be drawn is no reason to stop.
            View::Bars { all, .. } => drop(all.println(line)),
            View::Lines { .. } => eprintln!("{line}"),
        }
    }

    /// Follows the run until everything has settled, or had long enough to: what is still open then is for the audit.
    pub(crate) async fn follow(&self, world: &World, placing: &Placing) -> Result<(), Failure> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut all_placed_at = None;
        loop {
            look.tick().await;
            let counts = Counts::read(world, placing).await?;
            self.show(counts);
            if counts.placed == self.orders {
                let since = *all_placed_at.get_or_insert_with(Instant::now);
                if counts.is_settled() || since.elapsed() > PATIENCE {
                    self.finish(counts);
                    return Ok(());
                }
            }
        }
    }

    fn show(&self, counts: Counts) {
        match &self.view {
            View::Bars { placed, ended, delivered, .. } => {
                placed.set_position(counts.placed);
                ended.set_position(counts.ended);
                delivered.set_length(counts.published.max(1));
                delivered.set_position(counts.delivered);
            }
            View::Lines { said_at_millis } => {
                let now = self.begun.elapsed().as_millis() as u64;
                if now >= said_at_millis.load(Ordering::Relaxed) + SAY_EVERY.as_millis() as u64 {
                    said_at_millis.store(now, Ordering::Relaxed);
                    self.say(&counts.to_string());
                }
            }
        }
    }

    fn finish(&self, counts: Counts) {
        match &self.view {
            View::Bars { placed, ended, delivered, .. } => {
                self.show(counts);
                [placed, ended, delivered].into_iter().for_each(ProgressBar::abandon);
            }
            View::Lines { .. } => self.say(&counts.to_string()),
        }
    }
}

impl View {
    fn bars(orders: u64) -> Self {
        let all = MultiProgress::new();
        let bar = |name: &'static str, length| {
            let bar = all.add(ProgressBar::new(length).with_message(name));
            let style = ProgressStyle::with_template("{msg:<18} {bar:40.cyan/blue} {pos:>6} of {len}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        };
        let (placed, ended, delivered) =
            (bar("orders placed", orders), bar("sagas ended", orders), bar("events delivered", 1));
        Self::Bars { all, placed, ended, delivered }
    }
}

impl Counts {
    /// Sagas first: once all have ended, no more events come.
    async fn read(world: &World, placing: &Placing) -> Result<Self, Failure> {
        let placed = u64::from(placing.placed());
        let (ended, parked): (i64, i64) = sqlx::query_as(
            "select count(*) filter (where status in ('completed', 'compensated')),
                    count(*) filter (where status = 'parked') from amends.saga",
        )
        .fetch_one(&world.orders)
        .await?;
        let (published, held): (i64, i64) =
            sqlx::query_as("select (select count(*) from amends.outbox), (select count(*) from amends.held_message)")
                .fetch_one(&world.orders)
                .await?;
        let delivered: i64 = sqlx::query_scalar("select count(*) from received").fetch_one(&world.warehouse).await?;
        let [ended, parked, published, held, delivered] =
            [ended, parked, published, held, delivered].map(i64::unsigned_abs);
        Ok(Self { placed, ended, parked, published, held, delivered })
    }

    /// Nothing moves any more: a parked saga waits for an operator.
    fn is_settled(&self) -> bool {
        self.ended + self.parked >= self.placed && self.held == 0 && self.delivered >= self.published
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { placed, ended, parked, published, held, delivered } = self;
        write!(f, "{placed} orders placed, {ended} sagas ended, {delivered} of {published} events delivered")?;
        if *parked > 0 {
            write!(f, ", {parked} sagas parked")?;
        }
        if *held > 0 {
            write!(f, ", {held} events held")?;
        }
        Ok(())
    }
}
