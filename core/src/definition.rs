//! What a saga is made of, as data: the part of a saga that outlives the process.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::RetryPolicy;
use crate::schedule::Schedule;

mod draw;
mod position;
mod regions;
mod text;
mod validate;

pub use position::Position;
pub(crate) use regions::Alternate;

/// A saga's name, version and graph of steps.
///
/// `#[saga]` makes one from an annotated `impl` and calls it `DEFINITION`; a saga written by hand begins with
/// [`new`](Self::new). Its [`Display`](std::fmt::Display) form has one line a step and is meant for a golden test;
/// [`mermaid`](Self::mermaid) and [`dot`](Self::dot) draw it.
///
/// # Stability
/// The name, the version, the step names, kinds and edges are written to disk with every saga; see
/// [`fingerprint`](Self::fingerprint). Policies, timeouts, delays, the deadline, the
/// schedule and the concurrency may change at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The name of the saga, unique in the database.
    pub name: Cow<'static, str>,
    /// The version of its graph. Several may run side by side.
    pub version: u32,
    /// The oldest version whose sagas this definition carries on; usually its own.
    pub since: u32,
    /// The steps, each after all that it depends on.
    pub steps: Cow<'static, [Step]>,
    /// A saga that has not passed its pivot so long after its start is undone.
    pub deadline: Option<Duration>,
    /// When it starts by itself.
    pub schedule: Option<Schedule>,
    /// So many sagas of this name go forward at once, in all workers together; the others stay due. Those that wait in the
    /// database do not count, nor do those that are undone: these are never held up.
    pub concurrency: Option<u32>,
}

/// One step of a [`Definition`].
#[expect(clippy::struct_excessive_bools, reason = "each is a key that `#[step]` has")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The name under which its outcome is recorded.
    pub name: Cow<'static, str>,
    /// What its body may do, and what is known when it fails.
    pub kind: StepKind,
    /// The steps that must have succeeded before it runs, as indices into [`Definition::steps`].
    pub after: Cow<'static, [usize]>,
    /// How it is undone; `None` if there is nothing to undo.
    pub compensation: Option<Compensation>,
    /// How an unknown outcome is found out, where it must be known; `None` asks again under the same key.
    pub probe: Option<Probe>,
    /// Once this step has succeeded the saga only goes forward.
    pub pivot: bool,
    /// When a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// How long one attempt may take; of a request, a signal or a child how long it is waited for, [`Duration::MAX`]
    /// being for ever.
    pub timeout: Duration,
    /// How long it waits before its first attempt, once it is ready.
    pub delay: Duration,
    /// What it receives: `input`, `item` or the names of steps.
    pub reads: Cow<'static, [Cow<'static, str>]>,
    /// It may decide that there is nothing to do; whoever reads it receives an `Option`.
    pub skippable: bool,
    /// It runs once for every item of a list.
    pub for_each: Option<ForEach>,
    /// If it fails, what happened since the last savepoint before it is undone, and the path that ends in this step is
    /// taken instead; its output stands for this one's.
    pub alternate: Option<usize>,
    /// A failure behind it that has an alternate is undone as far as here.
    pub savepoint: bool,
    /// The name of the saga that a [`StepKind::Child`] starts.
    pub child: Option<Cow<'static, str>>,
    /// A signal that comes before the step waits for it is refused instead of kept.
    pub refuses_early: bool,
    /// The version that brought it; 0 if it was always there. A saga of an older version that is past it does without,
    /// or with what its [`upcast`](Self::upcast) makes of the rest.
    pub since: u32,
    /// Its output can be made of what older sagas recorded.
    pub upcast: bool,
}

/// How a [`Step`] is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compensation {
    /// The name of the method that undoes the step.
    pub name: Cow<'static, str>,
    /// What its body may do; a signal undoes nothing.
    pub kind: StepKind,
    /// It cannot run without the step's output, so an unknown outcome must be settled first.
    pub needs_output: bool,
    /// What it receives: `input`, `item` or the names of steps.
    pub reads: Cow<'static, [Cow<'static, str>]>,
    /// When a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// How long one attempt may take, or how long a reply is waited for.
    pub timeout: Duration,
}

/// How the outcome of a [`Step`] is found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The name of the method that finds it out.
    pub name: Cow<'static, str>,
    /// When a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// How long one attempt may take.
    pub timeout: Duration,
}

/// A step that runs once for every item of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForEach {
    /// Where the list is: `input`, a step, or a field of one, such as `input.lines`.
    pub over: Cow<'static, str>,
    /// How many items are under way at once.
    pub concurrency: u32,
}

/// What the body of a step may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StepKind {
    /// Its writes, its messages and its record commit together: it takes effect exactly once.
    Tx,
    /// It calls another service under an idempotency key: at least once, so it can end unknown.
    Call,
    /// It sends a message through the outbox and sleeps in the database until the reply: it can end unknown.
    Request,
    /// It sleeps in the database until somebody sends it a signal.
    Signal,
    /// It starts another saga and sleeps in the database until that has ended; undone, that saga is undone.
    Child,
}

impl StepKind {
    /// It waits in the database for something from outside.
    pub const fn waits(self) -> bool {
        matches!(self, Self::Request | Self::Signal | Self::Child)
    }

    /// Its effects are in the saga's own database, so that its outcome is never unknown.
    pub const fn is_certain(self) -> bool {
        matches!(self, Self::Tx | Self::Signal)
    }
}

/// Why a [`Definition`] cannot run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("saga `{saga}`: {problem}")]
pub struct DefinitionError {
    /// The saga's name.
    pub saga: String,
    /// What is wrong, and how to mend it.
    pub problem: String,
}

impl Definition {
    /// How long one attempt of a step or compensation may take unless it says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

    /// How long a reply is waited for unless the step says otherwise.
    pub const DEFAULT_REPLY_TIMEOUT: Duration = Duration::from_hours(24);

    /// A definition without options.
    pub const fn new(name: Cow<'static, str>, version: u32, steps: Cow<'static, [Step]>) -> Self {
        Self { name, version, since: version, steps, deadline: None, schedule: None, concurrency: None }
    }

    /// The step of that name.
    pub fn step(&self, name: &str) -> Option<(usize, &Step)> {
        self.steps.iter().enumerate().find(|(_, step)| step.name == name)
    }

    /// Something in it is due so long after its start.
    pub(crate) fn counts_from_start(&self) -> bool {
        self.deadline.is_some() || self.steps.iter().any(|step| !step.delay.is_zero())
    }

    /// All steps that come before `step`.
    pub fn ancestors(&self, step: usize) -> impl Iterator<Item = usize> {
        let mut known = vec![false; step];
        for i in (0..=step).rev() {
            if i == step || known[i] {
                self.steps[i].after.iter().for_each(|&before| known[before] = true);
            }
        }
        known.into_iter().enumerate().filter_map(|(i, before)| before.then_some(i))
    }
}

impl Step {
    /// A step without options that comes after none.
    pub const fn new(name: Cow<'static, str>, kind: StepKind) -> Self {
        Self {
            name,
            kind,
            after: Cow::Borrowed(&[]),
            compensation: None,
            probe: None,
            pivot: false,
            retry: if kind.waits() { RetryPolicy::ONCE } else { RetryPolicy::STEP },
            timeout: match kind {
                StepKind::Request => Definition::DEFAULT_REPLY_TIMEOUT,
                StepKind::Signal | StepKind::Child => Duration::MAX,
                _ => Definition::DEFAULT_TIMEOUT,
            },
            delay: Duration::ZERO,
            reads: Cow::Borrowed(&[]),
            skippable: false,
            for_each: None,
            alternate: None,
            savepoint: false,
            child: None,
            refuses_early: false,
            since: 0,
            upcast: false,
        }
    }

    /// It cannot be undone, nor left alone, without knowing whether it happened.
    pub(crate) fn must_know(&self) -> bool {
        self.pivot || self.compensation.as_ref().is_some_and(|undo| undo.needs_output)
    }
}

impl Compensation {
    /// A compensation without options, that reads nothing.
    pub const fn new(name: Cow<'static, str>, kind: StepKind) -> Self {
        Self {
            name,
            kind,
            needs_output: false,
            reads: Cow::Borrowed(&[]),
            retry: RetryPolicy::COMPENSATION,
            timeout: match kind {
                StepKind::Request => Definition::DEFAULT_REPLY_TIMEOUT,
                StepKind::Signal | StepKind::Child => Duration::MAX,
                _ => Definition::DEFAULT_TIMEOUT,
            },
        }
    }
}
