//! Compares what is registered with where the live sagas stand: before a deploy, and at every start-up.

use std::collections::BTreeMap;
use std::fmt;

use super::Sagas;
use crate::definition::Position;
use crate::store::{Loaded, WorkerStore};
use crate::{Error, SagaId};

/// What the definitions that are registered would do to the live sagas that other definitions started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compatibility {
    /// How many sagas of a name and version are in which position, with one of them. Those whose definition has not changed are not
    /// counted.
    pub lines: Vec<CompatibilityLine>,
}

/// A line of a [`Compatibility`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompatibilityLine {
    /// The sagas' name.
    pub name: String,
    /// The version that they were started under.
    pub version: u32,
    /// What becomes of them; `None` if no definition that is registered here carries them on.
    pub position: Option<Position>,
    /// How many.
    pub sagas: usize,
    /// One of them.
    pub example: SagaId,
}

impl Compatibility {
    /// No saga would be hurt.
    pub fn is_safe(&self) -> bool {
        self.lines.iter().all(|line| matches!(line.position, Some(Position::Safe) | None))
    }
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return f.write_str("safe: every live saga was started by a definition that is registered as it was");
        }
        for (index, line) in self.lines.iter().enumerate() {
            let CompatibilityLine { name, version, sagas, example, .. } = line;
            write!(f, "{}{name} v{version}: ", if index == 0 { "" } else { "\n" })?;
            match &line.position {
                Some(Position::Safe) => write!(f, "safe for {sagas} live sagas")?,
                Some(Position::NeedsUpcast { step }) => write!(
                    f,
                    "needs an upcast: {sagas} sagas are past step `{step}`, which they never ran; add `since` and `upcast = …` to it \
                     (for example {example})"
                )?,
                Some(Position::Stranded { step, why }) => write!(
                    f,
                    "strands {sagas} sagas at step `{step}`: {why}; register the old definition beside the new one \
                     (for example {example})"
                )?,
                None => write!(f, "{sagas} live sagas, which no definition that is registered here carries on")?,
            }
        }
        Ok(())
    }
}

impl<S: WorkerStore> Sagas<S> {
    /// Compares the definitions that are registered with where every live saga of their names stands.
    ///
    /// Sagas whose definition has not changed are not read. [`run`](Self::run) asks the same, and refuses to start if
    /// sagas would be stranded.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn check(&self) -> Result<Compatibility, Error> {
        const PAGE: usize = 500;
        let mut names: Vec<String> = self.kinds.keys().map(|(name, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        let fingerprints: Vec<_> = self.kinds.values().map(|kind| kind.fingerprint).collect();
        let mut counted: BTreeMap<(String, u32, Option<Position>), (usize, SagaId)> = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.store.live(&names, &fingerprints, after, PAGE).await?;
            for loaded in &page {
                let key = (loaded.name.clone(), loaded.version, self.position(loaded));
                counted.entry(key).or_insert((0, loaded.id)).0 += 1;
            }
            after = page.last().map(|loaded| loaded.id);
            if page.len() < PAGE {
                break;
            }
        }
        let lines = counted.into_iter().map(|((name, version, position), (sagas, example))| CompatibilityLine {
            name,
            version,
            position,
            sagas,
            example,
        });
        Ok(Compatibility { lines: lines.collect() })
    }

    fn position(&self, loaded: &Loaded) -> Option<Position> {
        Some(self.definition_of(loaded)?.position(&loaded.fold()))
    }
}
