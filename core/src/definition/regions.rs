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
    /// The step in which the second path ends.
    pub(crate) end: usize,
    /// The second path, with the alternates that are inside it: what is taken then.
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
                Alternate { step, primary, end, path }
            })
            .collect();
        // What is tried instead of a part of a path belongs to that path, as does what is tried instead of a part of that.
        for _ in 0..alternates.len() {
            for inner in alternates.clone() {
                for outer in alternates.iter_mut().filter(|outer| outer.step != inner.step) {
                    if outer.primary.contains(&inner.step) {
                        take_in(&mut outer.primary, inner.primary.iter().chain(&inner.path));
                    }
                    if outer.path.contains(&inner.step) {
                        take_in(&mut outer.path, inner.path.iter());
                    }
                }
            }
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

fn take_in<'a>(path: &mut Vec<usize>, tried: impl Iterator<Item = &'a usize>) {
    path.extend(tried);
    path.sort_unstable();
    path.dedup();
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

    #[test]
    fn a_path_takes_in_what_is_tried_instead_of_a_part_of_it_wherever_that_stands() {
        let steps = vec![
            Step { savepoint: true, ..step("hold", &[]) },
            Step { alternate: Some(3), ..step("fly", &[0]) },
            Step { alternate: Some(6), ..step("stay", &[1]) },
            Step { alternate: Some(4), ..step("train", &[0]) },
            Step { savepoint: true, alternate: Some(7), ..step("walk", &[0]) },
            step("rest", &[]),
            step("go_home", &[0]),
            step("crawl", &[0]),
        ];
        let definition = Definition::new("trip".into(), 1, steps.into());
        definition.validate().unwrap();

        let alternates = definition.alternates();
        let of = |step: usize| alternates.iter().find(|alternate| alternate.step == step).unwrap();
        assert_eq!((&of(1).path[..], of(1).end), (&[3, 4, 7][..], 3));
        assert_eq!(&of(2).primary[..], [1, 2, 3, 4, 7], "whichever was taken is undone with it");
    }
}
