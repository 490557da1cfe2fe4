//! The rules that `#[saga]` checks at compile time, for sagas written by hand.

use super::{Definition, DefinitionError, Step, StepKind};
use crate::schedule::Schedule;

/// The longest name of a saga, a step or a message type, in bytes.
const MAX_NAME_BYTES: usize = 200;

impl Definition {
    /// Checks the rules that `#[saga]` checks at compile time, for sagas written by hand.
    ///
    /// # Errors
    /// Returns the first rule that is broken, and how to mend it.
    pub fn validate(&self) -> Result<(), DefinitionError> {
        let broken = |problem: String| DefinitionError { saga: self.name.to_string(), problem };
        self.check_head().map_err(broken)?;
        for (index, step) in self.steps.iter().enumerate() {
            self.check_place(index, step).map_err(broken)?;
            check_options(step).map_err(|problem| broken(format!("step `{}` {problem}", step.name)))?;
        }
        self.check_alternates().map_err(broken)
    }

    fn check_head(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!("a saga's name has 1 to {MAX_NAME_BYTES} visible characters"));
        }
        if self.version == 0 || self.since == 0 {
            return Err("versions count from 1".into());
        }
        if self.since > self.version {
            return Err(format!("version {} cannot carry on sagas of the later version {}", self.version, self.since));
        }
        if self.steps.is_empty() {
            return Err("a saga has at least one step".into());
        }
        if self.concurrency == Some(0) {
            return Err("with a concurrency of 0 no saga would ever run".into());
        }
        self.schedule.as_ref().map_or(Ok(()), Schedule::check)
    }

    fn check_place(&self, index: usize, step: &Step) -> Result<(), String> {
        let name = &step.name;
        // A slash ends the step in an idempotency key, and a bracket begins the number of an item.
        if !is_name(name) || name.contains(['/', '[']) {
            return Err(format!(
                "step {index}: a name has 1 to {MAX_NAME_BYTES} visible characters, no slash and no bracket"
            ));
        }
        if self.steps[..index].iter().any(|earlier| earlier.name == *name) {
            return Err(format!("two steps are called `{name}`; what is recorded of one would be read for the other"));
        }
        if step.after.iter().any(|&before| before >= index) {
            return Err(format!("step `{name}` comes after a step that does not stand before it"));
        }
        let past_pivot = self.ancestors(index).any(|i| self.steps[i].pivot);
        if step.pivot && past_pivot {
            return Err(format!("step `{name}` is a second pivot on its path; a path has one"));
        }
        if (step.pivot || past_pivot) && step.compensation.is_some() {
            return Err(format!(
                "step `{name}` is at or after the pivot, so it is never undone; drop its compensation"
            ));
        }
        if (step.pivot || past_pivot) && step.alternate.is_some() {
            return Err(format!("step `{name}` is at or after the pivot, so it has no alternate; drop it"));
        }
        if step.since > self.version {
            return Err(format!("step `{name}` came with version {}, and this is {}", step.since, self.version));
        }
        Ok(())
    }

    fn check_alternates(&self) -> Result<(), String> {
        let alternates = self.alternates();
        for alternate in &alternates {
            let name = |i: usize| &self.steps[i].name;
            let (step, end) = (alternate.step, alternate.end);
            if end <= step || alternate.path.iter().any(|i| alternate.primary.contains(i)) {
                return Err(format!(
                    "the alternate of `{}` stands behind it and comes after none of its path",
                    name(step)
                ));
            }
            if self.ancestors(end).any(|i| alternate.primary.contains(&i)) {
                return Err(format!(
                    "`{}` comes after the path that it replaces; let it come after the savepoint",
                    name(end)
                ));
            }
            if alternates.iter().any(|other| other.step != step && other.end == end) {
                return Err(format!("`{}` is the alternate of two steps; write one for each", name(end)));
            }
            let both = alternate.primary.iter().chain(&alternate.path);
            if let Some(pivot) = both.clone().find(|&&i| self.steps[i].pivot) {
                return Err(format!(
                    "`{}` is a pivot, behind which no savepoint can be reached; move it",
                    name(*pivot)
                ));
            }
            for (later, it) in self.steps.iter().enumerate() {
                let leaks = |side: &[usize], end: Option<usize>| {
                    let inside = |i: &&usize| side.contains(i) && Some(**i) != end;
                    it.after.iter().find(inside).filter(|_| !side.contains(&later)).copied()
                };
                if let Some(before) = leaks(&alternate.primary, Some(step)).or_else(|| leaks(&alternate.path, None)) {
                    return Err(format!(
                        "`{}` comes after `{}`, which may not happen; let it come after `{}`",
                        it.name,
                        name(before),
                        name(step)
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check_options(step: &Step) -> Result<(), &'static str> {
    let undo = step.compensation.as_ref().map(|undo| undo.kind);
    if undo == Some(StepKind::Signal) {
        return Err("cannot be undone by a signal; use a transaction, a call or a request");
    }
    if undo == Some(StepKind::Child) && step.kind != StepKind::Child {
        return Err("has no child saga that could be undone");
    }
    if step.child.is_some() != (step.kind == StepKind::Child) {
        return Err("names a child saga if, and only if, it is of that kind");
    }
    if step.for_each.as_ref().is_some_and(|each| each.concurrency == 0) {
        return Err("runs at least one item at once");
    }
    if step.for_each.is_some() && step.kind == StepKind::Signal {
        return Err("waits for one signal, not for one an item");
    }
    if step.for_each.is_some() && step.pivot {
        return Err("is a pivot, and so cannot happen in part; put the pivot behind it");
    }
    if step.probe.is_some() && step.kind.is_certain() {
        return Err("is never in doubt, so it needs no probe");
    }
    if step.upcast && step.since == 0 {
        return Err("was always there, so nothing need be made up for it; say since which version");
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
}
