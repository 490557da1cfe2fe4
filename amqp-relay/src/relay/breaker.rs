//! Circuit breakers: an exchange that takes nothing is left alone for a while, and the others flow on. Pure.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::relay::routes::Exchange;
use crate::relay::wave::Verdict;

/// The first pause; it doubles with each failure.
const SHORTEST: Duration = Duration::from_millis(500);
/// An exchange that is there again takes messages again after so long at most.
const LONGEST: Duration = Duration::from_secs(10);

/// One for each exchange that took nothing when it was last tried.
#[derive(Debug, Default)]
pub(crate) struct Breakers(HashMap<Exchange, Breaker>);

#[derive(Debug)]
struct Breaker {
    pause: Duration,
    until: Instant,
    reason: String,
}

impl Breakers {
    /// Learns from what became of a wave; the answer is why an exchange takes nothing, if that is new.
    pub(crate) fn learn<'v>(&mut self, exchange: &Exchange, verdicts: &'v [Verdict], now: Instant) -> Option<&'v str> {
        let was_known = self.0.contains_key(exchange);
        let mut why = None;
        for verdict in verdicts {
            match verdict {
                Verdict::Unreachable(reason) => {
                    self.trip(exchange, reason, now);
                    why = Some(reason.as_str());
                }
                Verdict::Published | Verdict::Refused(_) => self.reset(exchange),
                Verdict::Unknown | Verdict::Unanswered => {}
            }
        }
        why.filter(|_| !was_known)
    }

    /// Nothing got through to it: it is left alone until a pause is over.
    fn trip(&mut self, exchange: &Exchange, reason: &str, now: Instant) {
        // What was on its way when it tripped says nothing new.
        if self.shut(exchange, now).is_some() {
            return;
        }
        let pause = self.0.get(exchange).map_or(SHORTEST, |breaker| (breaker.pause * 2).min(LONGEST));
        self.0.insert(exchange.clone(), Breaker { pause, until: now + pause, reason: reason.to_owned() });
    }

    /// It has taken a message.
    fn reset(&mut self, exchange: &Exchange) {
        self.0.remove(exchange);
    }

    /// How long it is left alone yet, and why; `None` if it may be tried.
    pub(crate) fn shut(&self, exchange: &Exchange, now: Instant) -> Option<(Duration, &str)> {
        let breaker = self.0.get(exchange)?;
        (breaker.until > now).then(|| (breaker.until - now, breaker.reason.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_limit_and_a_success_forgets_them() {
        let (mut breakers, bad, mut now) = (Breakers::default(), Exchange::from("bad"), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..7 {
            breakers.trip(&bad, "404", now);
            breakers.trip(&bad, "404 of another wave", now);
            pauses.push(breakers.shut(&bad, now).unwrap().0.as_millis());
            assert!(breakers.shut(&"good".into(), now).is_none());
            now += breakers.shut(&bad, now).unwrap().0;
            assert!(breakers.shut(&bad, now).is_none(), "it may be tried again");
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        breakers.reset(&bad);
        breakers.trip(&bad, "404", now);
        assert_eq!(breakers.shut(&bad, now).unwrap().0, SHORTEST);
    }
}
