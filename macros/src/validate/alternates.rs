//! Savepoints and alternates: which steps may be given up, and for which others.

use super::{choices, step_names};
use crate::model::Saga;
use crate::sink::Sink;

/// Two paths from one savepoint: the second is taken if the first fails.
#[derive(Clone)]
pub(super) struct Alternate {
    /// The step in which the first path ends.
    pub(super) step: usize,
    /// The first path, with the alternates that are inside it.
    pub(super) primary: Vec<usize>,
    /// The step in which the second path ends.
    pub(super) end: usize,
    /// The second path, with the alternates that are inside it.
    path: Vec<usize>,
}

/// Which step is the alternate of each, as far as they are sound.
pub(super) fn ends(saga: &Saga, sink: &mut Sink) -> Vec<Option<usize>> {
    let mut ends: Vec<Option<usize>> = Vec::with_capacity(saga.steps.len());
    for (index, step) in saga.steps.iter().enumerate() {
        let Some(name) = &step.args.alternate else {
            ends.push(None);
            continue;
        };
        let mut end = saga.find(name).filter(|end| *end > index);
        if end.is_none() {
            let known = choices("steps after it", step_names(&saga.steps[index + 1..]));
            sink.at(name.span(), format!("`{name}` is not a step after `{}`; {known}", step.body.name()));
        } else if ends.contains(&end) {
            sink.at(name.span(), format!("`{name}` is the alternate of another step already; write one for each step"));
            end = None;
        }
        ends.push(end);
    }
    ends
}

/// The paths of all alternates; empty if one of them breaks a rule. As `core/src/definition/regions.rs` has them.
pub(super) fn alternates(
    saga: &Saga,
    ends: &[Option<usize>],
    after: &[Vec<usize>],
    before: &[Vec<bool>],
    sink: &mut Sink,
) -> Vec<Alternate> {
    let known = sink.len();
    let pairs = ends.iter().enumerate().filter_map(|(step, end)| Some((step, (*end)?)));
    let mut alternates: Vec<_> = pairs.map(|(step, end)| alternate(saga, before, step, end)).collect();
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
    for alternate in &alternates {
        check(saga, alternate, after, before, sink);
    }
    if known == sink.len() { alternates } else { Vec::new() }
}

fn alternate(saga: &Saga, before: &[Vec<bool>], step: usize, end: usize) -> Alternate {
    let ancestors = |of: usize| (0..of).filter(move |&i| before[of][i]);
    let savepoint = ancestors(step).filter(|&i| saga.steps[i].args.savepoint.is_some()).max();
    let is_behind = |i: usize| savepoint.is_some_and(|savepoint| before[i][savepoint]);
    let primary = ancestors(step).filter(|&i| is_behind(i)).chain([step]).collect();
    let path = ancestors(end).filter(|&i| i != step && !before[step][i]).chain([end]).collect();
    Alternate { step, primary, end, path }
}

fn take_in<'a>(path: &mut Vec<usize>, tried: impl Iterator<Item = &'a usize>) {
    path.extend(tried);
    path.sort_unstable();
    path.dedup();
}

fn check(saga: &Saga, alternate: &Alternate, after: &[Vec<usize>], before: &[Vec<bool>], sink: &mut Sink) {
    let name = |step: usize| saga.steps[step].body.name();
    let (step, end) = (alternate.step, alternate.end);
    // The first of the path: what it comes after was written there, or should have been.
    let first = alternate.path.iter().find(|&&it| after[it].iter().any(|before| alternate.primary.contains(before)));
    if let Some(&first) = first.filter(|_| alternate.primary.iter().any(|&i| before[end][i])) {
        let written = saga.steps[first].args.after.as_ref();
        let is_given_up = |name: &&syn::Ident| saga.find(name).is_some_and(|it| alternate.primary.contains(&it));
        let span =
            written.and_then(|names| names.iter().find(is_given_up)).map_or(name(first).span(), syn::Ident::span);
        sink.at(
            span,
            format!(
                "`{}` comes after what it is taken instead of; write what comes before both, such as `after = savepoint` \
                 or `after = start`",
                name(first)
            ),
        );
        return;
    }
    let both = alternate.primary.iter().chain(&alternate.path);
    let pivots = both.filter_map(|&it| Some((it, saga.steps[it].args.pivot?)));
    for (pivot, span) in pivots {
        sink.at(
            span,
            format!(
                "behind a pivot no savepoint can be reached, and `{}` may have to be given up; put the pivot behind `{}`",
                name(pivot),
                name(step)
            ),
        );
    }
    for (later, before) in after.iter().enumerate() {
        let is_outside = |side: &[usize]| !side.contains(&later);
        let leaks = |&&it: &&usize| {
            alternate.primary.contains(&it) && it != step && is_outside(&alternate.primary)
                || alternate.path.contains(&it) && is_outside(&alternate.path)
        };
        let Some(&leaked) = before.iter().find(leaks) else { continue };
        let written =
            saga.steps[later].args.after.as_ref().and_then(|names| names.iter().find(|it| *it == name(leaked)));
        sink.at(
            written.unwrap_or(name(later)).span(),
            format!(
                "`{}` comes after `{}`, which may not happen; write `after = {}`, which stands for either path",
                name(later),
                name(leaked),
                name(step)
            ),
        );
    }
}
