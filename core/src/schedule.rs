//! Sagas that start by themselves, again and again.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;
use serde::{Deserialize, Serialize};

/// When a saga starts by itself: once for all workers, by the clock of the database.
///
/// What was missed while no worker ran is made up for once, not once for every time that was missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// At every multiple of this since 1970, in UTC: `every = "5m"` is at five past, ten past and so on.
    Every(Duration),
    /// By a [cron](https://man7.org/linux/man-pages/man5/crontab.5.html) line of five fields, in UTC.
    Cron(Cow<'static, str>),
}

/// The time for which a scheduled saga was started; its input is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// When it was due, which may be a while ago.
    pub at: DateTime<Utc>,
}

/// The business key of a scheduled start, so that it is one however often it is tried.
pub(crate) fn key(tick: Tick) -> String {
    format!("at {}", tick.at.to_rfc3339())
}

impl Schedule {
    /// The first time after `now`; `None` if there is none, such as for the 30th of February.
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Every(every) => {
                let every = i64::try_from(every.as_millis()).ok().filter(|every| *every > 0)?;
                let next = (now.timestamp_millis().div_euclid(every) + 1).checked_mul(every)?;
                DateTime::from_timestamp_millis(next)
            }
            Self::Cron(line) => {
                // Its fields are whole minutes, and a search that begins within one finds that one again.
                let next = Cron::from_str(line).ok()?.find_next_occurrence(&now, false).ok()?;
                (next > now).then_some(next).or_else(|| Some(next + TimeDelta::minutes(1)))
            }
        }
    }

    /// As text, to see whether it has changed.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Every(every) => format!("every {every:?}"),
            Self::Cron(line) => format!("cron {line}"),
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Every(every) if every.as_millis() == 0 => {
                Err("a schedule's `every` is a millisecond at least".into())
            }
            Self::Every(_) => Ok(()),
            Self::Cron(line) => match Cron::from_str(line) {
                Ok(_) => Ok(()),
                Err(error) => {
                    Err(format!("`{line}` is not a cron line ({error}); write five fields, such as `0 3 * * *`"))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn every_five_minutes_is_at_five_past() {
        let every = Schedule::Every(Duration::from_mins(5));
        assert_eq!(every.next_after(at("2026-11-24T15:03:10Z")), Some(at("2026-11-24T15:05:00Z")));
        assert_eq!(every.next_after(at("2026-11-24T15:05:00Z")), Some(at("2026-11-24T15:10:00Z")));
    }

    #[test]
    fn a_cron_line_is_read_as_cron_does() {
        let nightly = Schedule::Cron("0 3 * * *".into());
        assert_eq!(nightly.next_after(at("2026-11-24T15:03:10Z")), Some(at("2026-11-25T03:00:00Z")));
        assert_eq!(nightly.next_after(at("2026-11-25T03:00:00Z")), Some(at("2026-11-26T03:00:00Z")));
        let never = Schedule::Cron("0 0 30 2 *".into());
        assert_eq!((never.check(), never.next_after(at("2026-11-24T15:03:10Z"))), (Ok(()), None));
        assert!(Schedule::Cron("at tea time".into()).check().unwrap_err().contains("five fields"));
    }
}
