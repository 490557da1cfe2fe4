//! Savepoints and alternates (Garcia-Molina and Salem, *Sagas*, 1987, section 5): which steps are undone when a path
//! fails, and which are taken instead.

use super::Definition;

/// Two paths from one savepoint: the second is taken if the first fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alternate {
    /// The step in which the first path ends.
    pub(crate) step: usize,
    /// The first path, with the alternates that are inside it: what is undone when it fails.
    pub(crate) primary: Vec<usize>,
    /// The second path: what is taken then.
    pub(crate) path: Vec<usize>,
}

impl Definition {
    /// All alternates; none in most sagas.
    pub(crate) fn alternates(&self) -> Vec<Alternate> {
        let ends = self.steps.iter().enumerate().filter_map(|(step, it)| Some((step, it.alternate?)));
        let mut alternates: Vec<_> = ends
            .map(|(step, end)| {
                let before: Vec<_> = self.ancestors(step).collect();
                let savepoint = before.iter().copied().filter(|&i| self.steps[i].savepoint).max();
                let is_behind = |i: usize| savepoint.is_some_and(|savepoint| self.ancestors(i).any(|a| a == savepoint));
                let primary = before.iter().copied().filter(|&i| is_behind(i)).chain([step]).collect();
                let path = self.ancestors(end).filter(|i| *i != step && !before.contains(i)).chain([end]).collect();
                Alternate { step, primary, path }
            })
            .collect();
        // What is tried instead of a part of a path belongs to that path. A step's alternate stands behind it, so that the
        // inner ones, whose steps come first, are complete when an outer one takes them in.
        for outer in 0..alternates.len() {
            for inner in 0..outer {
                if alternates[outer].primary.contains(&alternates[inner].step) {
                    let tried: Vec<_> =
                        alternates[inner].primary.iter().chain(&alternates[inner].path).copied().collect();
                    alternates[outer].primary.extend(tried);
                }
            }
            alternates[outer].primary.sort_unstable();
            alternates[outer].primary.dedup();
        }
        alternates
    }

    /// The steps whose output `step` can surely read: they, or what was taken in their place, have succeeded.
    #[cfg(test)]
    pub(crate) fn surely_before(&self, step: usize) -> Vec<usize> {
        let alternates = self.alternates();
        self.ancestors(step)
            .filter(|&i| alternates.iter().all(|a| i == a.step || !a.primary.contains(&i) || a.primary.contains(&step)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Definition, Step, StepKind};

    fn step(name: &'static str, after: &'static [usize]) -> Step {
        Step { after: after.into(), ..Step::new(name.into(), StepKind::Call) }
    }

    #[test]
    fn a_path_goes_back_to_the_last_savepoint_before_its_end() {
        let steps = vec![
            Step { savepoint: true, ..step("reserve", &[]) },
            step("flight", &[0]),
            Step { alternate: Some(4), ..step("airport_hotel", &[1]) },
            step("train", &[0]),
            step("station_hotel", &[3]),
            step("pay", &[2]),
        ];
        let definition = Definition::new("trip".into(), 1, steps.into());
        definition.validate().unwrap();

        let alternates = definition.alternates();
        assert_eq!(alternates.len(), 1);
        assert_eq!((&alternates[0].primary[..], &alternates[0].path[..]), (&[1, 2][..], &[3, 4][..]));
        assert_eq!(definition.surely_before(5), [0, 2], "the flight may have been given up");
    }
}
