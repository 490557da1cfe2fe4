//! The customers: they have money, want goods, and repeat an order until it is taken.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::StatusCode;
use shop::api::{Order, OrderAccepted};
use shop::service::Failure;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use crate::world::World;

/// How many customers there are.
pub(crate) const ACCOUNTS: u32 = 50;
/// What each has at first.
pub(crate) const CENTS: i64 = 1_000_000;
/// How many kinds of goods there are.
pub(crate) const SKUS: u32 = 20;
/// How many there are of each at first.
pub(crate) const STOCK: i32 = 10_000;

/// The orders come over about this time, so that processes are killed while there is work.
const RUSH: Duration = Duration::from_secs(12);
const AT_ONCE: usize = 32;
/// One customer in so many changes their mind, at most this long after the order was taken.
const FICKLE: u32 = 20;
const SECOND_THOUGHT_MILLIS: u64 = 500;
/// A customer whose order is not taken for this long gives up, and the demo with him.
const PATIENCE: Duration = Duration::from_secs(45);

/// Gives everybody money and fills the shelves.
pub(crate) async fn endow(world: &World) -> Result<(), Failure> {
    sqlx::query("insert into account (id, cents) select 'customer-' || n, $2 from generate_series(1, $1) n")
        .bind(ACCOUNTS as i32)
        .bind(CENTS)
        .execute(&world.payments)
        .await?;
    sqlx::query("insert into stock (sku, available) select 'sku-' || n, $2 from generate_series(1, $1) n")
        .bind(SKUS as i32)
        .bind(STOCK)
        .execute(&world.orders)
        .await?;
    Ok(())
}

/// An order, and when the customer thinks better of it.
#[derive(Debug)]
struct Wish {
    order: Order,
    cancel_after: Option<Duration>,
}

/// Orders that are being placed.
#[derive(Debug)]
pub(crate) struct Placing {
    orders: Vec<Wish>,
    urls: Vec<String>,
    http: reqwest::Client,
    placed: AtomicU32,
}

impl Placing {
    /// Draws the orders; the same seed draws the same ones.
    pub(crate) fn new(count: u32, seed: u64, urls: Vec<String>) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let orders = (0..count).map(|_| draw(&mut dice)).collect();
        Self { orders, urls, http: reqwest::Client::new(), placed: AtomicU32::new(0) }
    }

    /// How many were taken so far.
    pub(crate) fn placed(&self) -> u32 {
        self.placed.load(Ordering::Relaxed)
    }

    /// The share that was taken so far, from 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        f64::from(self.placed()) / self.orders.len() as f64
    }

    /// Places all orders, at the two instances in turn; gives them back.
    pub(crate) async fn run(&self) -> Result<Vec<Order>, Failure> {
        let mut pace = interval((RUSH / self.orders.len() as u32).max(Duration::from_micros(1)));
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let paced = stream::unfold((pace, 0), |(mut pace, n)| async move {
            pace.tick().await;
            self.orders.get(n).map(|wish| ((n, wish), (pace, n + 1)))
        });
        paced
            .map(|(n, wish)| async move {
                self.place(n, &wish.order).await?;
                self.placed.fetch_add(1, Ordering::Relaxed);
                if let Some(pause) = wish.cancel_after {
                    sleep(pause).await;
                    self.cancel(n, &wish.order).await;
                }
                Ok::<_, Failure>(())
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        Ok(self.orders.iter().map(|wish| wish.order.clone()).collect())
    }

    /// Repeats the same order, at the other instance, until one has taken it.
    async fn place(&self, n: usize, order: &Order) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut attempt = n;
        loop {
            let url = &self.urls[attempt % self.urls.len()];
            let problem = match self.post(url, order).await {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            if begun.elapsed() > PATIENCE {
                return Err(format!("order {} was not taken for {PATIENCE:?}: {problem}", order.id).into());
            }
            attempt += 1;
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asks once: it may come too late, or find nobody, and then the order stands.
    async fn cancel(&self, n: usize, order: &Order) {
        let url = format!("{}/orders/{}", self.urls[n % self.urls.len()], order.id);
        let _ = self.http.delete(url).timeout(Duration::from_secs(5)).send().await;
    }

    async fn post(&self, url: &str, order: &Order) -> Result<(), Failure> {
        let reply = self.http.post(format!("{url}/orders")).timeout(Duration::from_secs(5)).json(order).send().await?;
        match reply.status() {
            StatusCode::ACCEPTED => reply.json::<OrderAccepted>().await.map(drop).map_err(Failure::from),
            status => Err(format!("{url} answered {status}: {}", reply.text().await.unwrap_or_default()).into()),
        }
    }
}

fn draw(dice: &mut fastrand::Rng) -> Wish {
    let (sku, qty) = (dice.u32(1..=SKUS), dice.i32(1..=3));
    // An odd price, so that a sum which is a cent off shows.
    let price = i64::from(sku) * 137 + 499;
    let order = Order {
        id: Uuid::from_u128(dice.u128(..)),
        account: format!("customer-{}", dice.u32(1..=ACCOUNTS)),
        sku: format!("sku-{sku}"),
        qty,
        cents: price * i64::from(qty),
        card: format!("tok_{:06}", dice.u32(..1_000_000)),
    };
    let pause = Duration::from_millis(dice.u64(..SECOND_THOUGHT_MILLIS));
    Wish { order, cancel_after: (dice.u32(..FICKLE) == 0).then_some(pause) }
}
