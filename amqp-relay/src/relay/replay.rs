//! Retained messages once more, for whoever has lost them or is new.

use std::sync::Arc;
use std::time::Duration;

use amends::MessageId;
use amends_postgres::cursor::{Page, Retold, Sequenced};
use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep_until};

use crate::relay::Relay;
use crate::relay::routes::{Routes, fits};
use crate::relay::wave::{self, Target};
use crate::relay::window::{Ordering, Window};
use crate::{RelayError, broker};

/// The header of a message that is published once more.
pub const REPLAYED_HEADER: &str = "amends-replayed";

/// How many are read at once.
const PAGE: usize = 500;

/// Which messages are published once more, and where.
///
/// They are the same messages with the same ids, so a consumer that has had one within the retention of its inbox takes it for a
/// copy. What is not published yet is left to the relay. Cursors do not move, and relays go on meanwhile.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Written at this time or later; what the retention has dropped is gone.
    pub since: DateTime<Utc>,
    /// Written before this time.
    pub until: Option<DateTime<Utc>>,
    /// Of these types, by a pattern as AMQP topics have.
    pub types: Option<String>,
    /// Of this key.
    pub key: Option<String>,
    /// To this queue alone, and to nobody else.
    pub queue: Option<String>,
    /// So many a second at most.
    pub rate: Option<u32>,
}

/// What was published once more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// How many.
    pub published: usize,
    /// Which the broker would not take, and why.
    pub refused: Vec<(MessageId, String)>,
}

impl Replay {
    /// Everything since a time, to where it went before.
    pub fn since(since: DateTime<Utc>) -> Self {
        Self { since, until: None, types: None, key: None, queue: None, rate: None }
    }
}

impl Relay {
    /// Publishes retained messages once more, each key in its order, and returns when all are confirmed or refused.
    ///
    /// # Errors
    /// If the database or the broker fails; what was published by then may be published again.
    pub async fn replay(&self, replay: &Replay) -> Result<Replayed, RelayError> {
        let connection = broker::connect(&self.url, &format!("{} replay", self.options.name)).await?;
        let replayed = self.replay_on(&connection, replay).await;
        broker::close(&connection).await;
        replayed
    }

    async fn replay_on(&self, connection: &lapin::Connection, replay: &Replay) -> Result<Replayed, RelayError> {
        let options = &self.options;
        let target = Target {
            routes: Arc::new(match &replay.queue {
                Some(queue) => Routes::to_queue(queue),
                None => Routes::new(&options.exchange, &options.routes),
            }),
            source: options.source.clone(),
            reply_to: None,
            deadline: options.confirm_deadline,
            most_headers: wave::most_headers(connection.configuration().frame_max()),
            status: connection.status().clone(),
        };
        let mut channel = broker::confirmed_channel(connection).await?;
        let Replay { since, until, key, .. } = replay.clone();
        let mut retold = Retold { since, until, key, after: 0 };
        let (mut replayed, mut next) = (Replayed::default(), Instant::now());
        loop {
            let mut messages = retold.page(&self.pool, PAGE).await?;
            if messages.is_empty() {
                return Ok(replayed);
            }
            messages.retain(|it| replay.types.as_ref().is_none_or(|types| fits(types, &it.message.name)));
            for sequenced in &mut messages {
                sequenced.message.headers.insert(REPLAYED_HEADER.to_owned(), "true".to_owned());
            }
            let count = messages.len();
            let mut window = Window::new(Ordering::Strict, 1);
            window.push(Page::of(messages), |_| false, |it| target.routes.exchange(&it.message));
            while let Some(wave) = window.next_wave(replay.rate.map_or(PAGE, |rate| rate.max(1) as usize), 0, |_| None)
            {
                sleep_until(next).await;
                let sent: Vec<&Sequenced> = wave.messages().collect();
                if let Some(rate) = replay.rate {
                    next = Instant::now() + Duration::from_secs(1) * sent.len() as u32 / rate.max(1);
                }
                let verdicts = wave::publish(&channel, &target, &wave.exchange, &sent).await?;
                drop(sent);
                if !channel.status().connected() {
                    channel = broker::confirmed_channel(connection).await?;
                }
                window.judge(wave, verdicts);
            }
            let left = window.settled().map(|(page, left)| {
                left.into_iter().map(|(index, _, reason)| (page.messages[index].message.id, reason)).collect::<Vec<_>>()
            });
            let left = left.unwrap_or_default();
            replayed.published += count - left.len();
            replayed.refused.extend(left);
        }
    }
}
