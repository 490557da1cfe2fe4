//! What an exploration has found, for people.

use std::collections::BTreeSet;
use std::fmt;

use super::moves::{Effect, How};
use super::simulation::Flight;
use crate::definition::Definition;
use crate::machine::Phase;
use crate::state::{Forward, State};

/// What an exploration without a violation has seen. Print it.
#[derive(Debug, Clone)]
pub struct Report {
    pub(super) saga: String,
    pub(super) schedules: u128,
    pub(super) runs: u64,
    pub(super) states: u64,
    pub(super) sampled: Option<(u64, u64)>,
    pub(super) never: Vec<String>,
}

impl Report {
    /// How many schedules hold what was checked. Those that come to a moment that was seen before are counted, not run
    /// again.
    pub fn schedules(&self) -> u128 {
        self.schedules
    }

    /// How many schedules were run to their end, or to a moment that was seen before.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// How many different moments there were.
    pub fn states(&self) -> u64 {
        self.states
    }

    /// Every schedule was explored. Otherwise the budget was too small, and the rest was sampled.
    pub fn is_exhaustive(&self) -> bool {
        self.sampled.is_none()
    }

    /// What no schedule did, such as *no compensation of `charge` ever ran*.
    pub fn never(&self) -> &[String] {
        &self.never
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { saga, runs, states, .. } = self;
        write!(f, "saga `{saga}`: ")?;
        match self.sampled {
            None => write!(f, "all {} schedules hold", grouped(self.schedules))?,
            Some((samples, seed)) => write!(
                f,
                "NOT EXHAUSTIVE: {} schedules depth-first and {samples} at random (AMENDS_SEED={seed}) hold; give it a larger \
                 budget or fewer faults",
                grouped(self.schedules)
            )?,
        }
        write!(f, " ({runs} runs, {states} states)")?;
        self.never.iter().try_for_each(|never| write!(f, "\n  note: {never}"))
    }
}

/// The shortest schedule that breaks what must hold.
#[derive(Debug, Clone)]
pub struct Violation {
    pub(super) saga: String,
    pub(super) broken: String,
    pub(super) lines: Vec<String>,
    pub(super) hints: Vec<String>,
    pub(super) replay: String,
    pub(super) faults: u32,
}

impl Violation {
    /// What does not hold.
    pub fn broken(&self) -> &str {
        &self.broken
    }

    /// What happens in it, a line each.
    pub fn timeline(&self) -> &[String] {
        &self.lines
    }

    /// How many faults it takes.
    pub fn faults(&self) -> u32 {
        self.faults
    }

    /// The value of `AMENDS_REPLAY` that runs this schedule and no other.
    pub fn replay(&self) -> &str {
        &self.replay
    }
}

/// More would not be read.
const MOST_HINTS: usize = 2;

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "saga `{}`: {}\n", self.saga, self.broken)?;
        for (number, line) in self.lines.iter().enumerate() {
            writeln!(f, "{:4}  {line}", number + 1)?;
        }
        // What happened last is nearest to what broke.
        for hint in self.hints.iter().rev().take(MOST_HINTS) {
            write!(f, "\nhint: {hint}")?;
        }
        write!(f, "\nto run this schedule alone: AMENDS_REPLAY={} cargo test …", self.replay)
    }
}

impl std::error::Error for Violation {}

/// What has happened to which step, in any schedule: kind of saga, step, and what.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeSet<(usize, usize, What)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Ran,
    Failed,
    Undone,
}

impl Seen {
    pub(super) fn ran(&mut self, kind: usize, flight: &Flight, how: How, state: &State) {
        let step = flight.attempt.node.step;
        let what = match (flight.phase, how) {
            (Phase::Forward, How::Reject | How::TimeOut(Effect::Absent | Effect::Present | Effect::Late)) => {
                What::Failed
            }
            (Phase::Forward, _) => What::Ran,
            (Phase::Undo, _) => What::Undone,
            (Phase::Probe, _) => return,
        };
        self.0.insert((kind, step, what));
        // What its own body refused shows in the state of what is undone after it.
        for failed in state.failed.keys() {
            let index = flight.data.definition.step(failed).map(|(index, _)| index);
            if let (Some(index), Some(record)) = (index, state.named(failed))
                && matches!(record.forward, Forward::Rejected { .. } | Forward::GaveUp { .. })
            {
                self.0.insert((kind, index, What::Failed));
            }
        }
    }

    /// What no schedule did.
    pub(super) fn missing<'a>(&self, definitions: impl Iterator<Item = &'a Definition>) -> Vec<String> {
        let mut missing = Vec::new();
        for (kind, definition) in definitions.enumerate() {
            let past_pivot = |step: usize| definition.ancestors(step).any(|before| definition.steps[before].pivot);
            for (index, step) in definition.steps.iter().enumerate() {
                let has = |what| self.0.contains(&(kind, index, what));
                let name = &step.name;
                if !step.kind.waits() && !has(What::Ran) {
                    missing.push(format!("`{name}` never ran"));
                } else if !step.kind.waits() && !has(What::Failed) && !past_pivot(index) {
                    missing.push(format!("`{name}` never failed"));
                }
                if let Some(undo) = step.compensation.as_ref().filter(|undo| !undo.kind.waits() && !has(What::Undone)) {
                    missing.push(format!("`{}`, which undoes `{name}`, never ran", undo.name));
                }
            }
        }
        missing
    }
}

/// `37 757`.
pub(super) fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}
