//! Which steps come before which, and what an alternate replaces: worked out again, as sets of bits.

use amends::Definition;

/// Sets of steps; there are at most 12.
pub(crate) type Set = u32;

pub(crate) const fn bit(step: usize) -> Set {
    1 << step
}

/// Two paths from one savepoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Region {
    /// Where the first path ends.
    pub(crate) step: usize,
    /// What is given up when it fails: also whatever was tried inside it.
    pub(crate) primary: Set,
    /// What is taken then: also whatever may be tried inside it.
    pub(crate) path: Set,
}

/// For each step, all that come before it.
fn ancestors(definition: &Definition) -> Vec<Set> {
    let mut all: Vec<Set> = Vec::new();
    for step in definition.steps.iter() {
        all.push(step.after.iter().fold(0, |set, &before| set | bit(before) | all[before]));
    }
    all
}

pub(crate) fn regions(definition: &Definition) -> Vec<Region> {
    let ancestors = &ancestors(definition);
    let mut regions = Vec::new();
    for (step, it) in definition.steps.iter().enumerate() {
        let Some(end) = it.alternate else { continue };
        let is_savepoint = |&i: &usize| ancestors[step] & bit(i) != 0 && definition.steps[i].savepoint;
        let behind = |savepoint: usize| (0..step).filter(move |&i| ancestors[i] & bit(savepoint) != 0);
        let since = (0..step).rev().find(is_savepoint).map_or(0, |it| behind(it).fold(0, |set, i| set | bit(i)));
        let primary = ancestors[step] & since | bit(step);
        let path = ancestors[end] & !ancestors[step] & !bit(step) | bit(end);
        regions.push(Region { step, primary, path });
    }
    // Until nothing more is tried inside any of them.
    let size = |it: &Region| it.primary.count_ones() + it.path.count_ones();
    let size = |regions: &[Region]| regions.iter().map(size).sum::<u32>();
    loop {
        let before = size(&regions);
        for outer in 0..regions.len() {
            for inner in 0..regions.len() {
                if outer != inner && regions[outer].primary & bit(regions[inner].step) != 0 {
                    regions[outer].primary |= regions[inner].primary | regions[inner].path;
                }
                if outer != inner && regions[outer].path & bit(regions[inner].step) != 0 {
                    regions[outer].path |= regions[inner].path;
                }
            }
        }
        if before == size(&regions) {
            return regions;
        }
    }
}
