//! What a saga is made of, as data: the part of a saga that outlives the process.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::RetryPolicy;

/// A saga's name, version and graph of steps.
///
/// `#[saga]` makes one from an annotated `impl` and calls it `DEFINITION`; a saga written by hand makes it
/// itself. Its [`Display`](fmt::Display) form has one line a step and is meant for a golden test.
///
/// # Stability
/// The name, the version, the step names, kinds and edges are written to disk with every saga; see
/// [`fingerprint`](Self::fingerprint). Policies and timeouts may change at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The name of the saga, unique in the database.
    pub name: Cow<'static, str>,
    /// The version of its graph. Several may run side by side.
    pub version: u32,
    /// The steps, each after all that it depends on.
    pub steps: Cow<'static, [Step]>,
}

/// One step of a [`Definition`].
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
    /// Once this step has succeeded the saga only goes forward.
    pub pivot: bool,
    /// When a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// How long one attempt may take.
    pub timeout: Duration,
}

/// How a [`Step`] is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compensation {
    /// The name of the method that undoes the step.
    pub name: Cow<'static, str>,
    /// What its body may do: [`StepKind::Tx`] or [`StepKind::Call`].
    pub kind: StepKind,
    /// It cannot run without the step's output, so an unknown outcome must be settled first.
    pub needs_output: bool,
    /// When a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// How long one attempt may take.
    pub timeout: Duration,
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
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tx => "tx",
            Self::Call => "call",
        })
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

/// The longest name of a saga, a step or a message type, in bytes.
const MAX_NAME_BYTES: usize = 200;

impl Definition {
    /// How long one attempt of a step or compensation may take unless it says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

    /// The step of that name.
    pub fn step(&self, name: &str) -> Option<(usize, &Step)> {
        self.steps.iter().enumerate().find(|(_, step)| step.name == name)
    }

    /// Identifies what is written to disk: name, version, step names, kinds, edges and compensations.
    ///
    /// The same version with another fingerprint is another saga in disguise.
    pub fn fingerprint(&self) -> Uuid {
        const NAMESPACE: Uuid = Uuid::from_u128(0x616d_656e_6473_4000_8000_7361_6761_6465);
        Uuid::new_v5(&NAMESPACE, self.to_string().as_bytes())
    }

    /// Checks the rules that `#[saga]` checks at compile time, for sagas written by hand.
    ///
    /// # Errors
    /// Returns the first rule that is broken, and how to mend it.
    pub fn validate(&self) -> Result<(), DefinitionError> {
        let fail = |problem: String| Err(DefinitionError { saga: self.name.to_string(), problem });
        if !is_name(&self.name) {
            return fail(format!("a saga's name has 1 to {MAX_NAME_BYTES} visible characters"));
        }
        if self.version == 0 {
            return fail("versions count from 1".into());
        }
        if self.steps.is_empty() {
            return fail("a saga has at least one step".into());
        }
        for (index, step) in self.steps.iter().enumerate() {
            let name = &step.name;
            // A slash ends the step in an idempotency key.
            if !is_name(name) || name.contains('/') {
                return fail(format!("step {index}: a name has 1 to {MAX_NAME_BYTES} visible characters and no slash"));
            }
            if self.steps[..index].iter().any(|earlier| earlier.name == *name) {
                return fail(format!(
                    "two steps are called `{name}`; what is recorded of one would be read for the other"
                ));
            }
            if step.after.iter().any(|&before| before >= index) {
                return fail(format!("step `{name}` comes after a step that does not stand before it"));
            }
            let past_pivot = self.ancestors(index).any(|i| self.steps[i].pivot);
            if step.pivot && past_pivot {
                return fail(format!("step `{name}` is a second pivot on its path; a path has one"));
            }
            if (step.pivot || past_pivot) && step.compensation.is_some() {
                return fail(format!(
                    "step `{name}` is at or after the pivot, so it is never undone; drop its compensation"
                ));
            }
        }
        Ok(())
    }

    /// All steps that surely succeeded before `step` runs.
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

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "saga {} v{}", self.name, self.version)?;
        for step in self.steps.iter() {
            write!(f, "\n  {} {}", step.kind, step.name)?;
            let after: Vec<_> = step.after.iter().map(|&i| &*self.steps[i].name).collect();
            if !after.is_empty() {
                write!(f, " after {}", after.join(", "))?;
            }
            if step.pivot {
                f.write_str(", pivot")?;
            }
            if let Some(undo) = &step.compensation {
                write!(f, ", undone by {} {}", undo.kind, undo.name)?;
                f.write_str(if undo.needs_output { " (needs its output)" } else { "" })?;
            }
        }
        Ok(())
    }
}
