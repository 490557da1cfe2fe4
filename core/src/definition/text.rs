//! The definition as text: what is written to disk, one line a step.

use std::fmt;

use uuid::Uuid;

use super::{Definition, StepKind};

impl Definition {
    /// Identifies what is written to disk: name, version, step names, kinds, edges and compensations.
    ///
    /// The same version with another fingerprint is another saga in disguise.
    pub fn fingerprint(&self) -> Uuid {
        const NAMESPACE: Uuid = Uuid::from_u128(0x616d_656e_6473_4000_8000_7361_6761_6465);
        Uuid::new_v5(&NAMESPACE, self.to_string().as_bytes())
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tx => "tx",
            Self::Call => "call",
            Self::Request => "request",
            Self::Signal => "signal",
            Self::Child => "child",
        })
    }
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "saga {} v{}", self.name, self.version)?;
        for step in self.steps.iter() {
            write!(f, "\n  {} {}", step.kind, step.name)?;
            if let Some(child) = &step.child {
                write!(f, " ({child})")?;
            }
            if let Some(each) = &step.for_each {
                write!(f, " for each of {}", each.over)?;
            }
            let after: Vec<_> = step.after.iter().map(|&i| &*self.steps[i].name).collect();
            if !after.is_empty() {
                write!(f, " after {}", after.join(", "))?;
            }
            f.write_str(if step.pivot { ", pivot" } else { "" })?;
            f.write_str(if step.savepoint { ", savepoint" } else { "" })?;
            f.write_str(if step.skippable { ", skippable" } else { "" })?;
            if let Some(undo) = &step.compensation {
                write!(f, ", undone by {} {}", undo.kind, undo.name)?;
                f.write_str(if undo.needs_output { " (needs its output)" } else { "" })?;
            }
            if let Some(alternate) = step.alternate {
                write!(f, ", else {}", self.steps[alternate].name)?;
            }
        }
        Ok(())
    }
}
