//! What comes after what, and from where there is no way back.

use super::{choices, step_names};
use crate::model::Saga;
use crate::sink::Sink;

pub(super) fn edges(saga: &Saga, sink: &mut Sink) -> Vec<Vec<usize>> {
    let mut edges = Vec::with_capacity(saga.steps.len());
    for (index, step) in saga.steps.iter().enumerate() {
        let Some(after) = &step.args.after else {
            edges.push(if index == 0 { Vec::new() } else { vec![index - 1] });
            continue;
        };
        let mut before = Vec::new();
        for name in after {
            match saga.find(name) {
                Some(earlier) if earlier < index && before.contains(&earlier) => {
                    sink.at(name.span(), format!("`{name}` is named twice; once is enough"));
                }
                Some(earlier) if earlier < index => before.push(earlier),
                _ => sink.at(
                    name.span(),
                    format!(
                        "`{name}` is not a step before `{}`; {}",
                        step.body.name(),
                        choices("steps before it", step_names(&saga.steps[..index]))
                    ),
                ),
            }
        }
        edges.push(before);
    }
    edges
}

/// The steps that surely ran before each step. Where the place of a step was mistaken, all that stand before it.
pub(super) fn ancestors(saga: &Saga, after: &[Vec<usize>]) -> Vec<Vec<bool>> {
    let mut all: Vec<Vec<bool>> = Vec::with_capacity(after.len());
    for (index, before) in after.iter().enumerate() {
        let mistaken = !saga.steps[index].args.sound
            || saga.steps[index].args.after.as_ref().is_some_and(|named| named.len() != before.len());
        let mut mine: Vec<_> = (0..after.len()).map(|earlier| mistaken && earlier < index).collect();
        for &step in before {
            mine[step] = true;
            for (known, theirs) in mine.iter_mut().zip(&all[step]) {
                *known |= theirs;
            }
        }
        all.push(mine);
    }
    all
}

pub(super) fn pivots(saga: &Saga, ancestors: &[Vec<bool>], sink: &mut Sink) -> Vec<bool> {
    let is_pivot = |step: usize| saga.steps[step].args.pivot.is_some();
    let behind = |step: usize| (0..saga.steps.len()).find(|&other| ancestors[step][other] && is_pivot(other));
    let mut no_way_back = Vec::with_capacity(saga.steps.len());
    for (index, step) in saga.steps.iter().enumerate() {
        if let (Some(span), Some(first)) = (step.args.pivot, behind(index)) {
            let first = saga.steps[first].body.name();
            sink.at(
                span,
                format!(
                    "a path has one pivot, and `{first}` comes before `{}`; what comes after a pivot is retried anyway",
                    step.body.name()
                ),
            );
        }
        if let (Some(span), Some(_)) = (step.args.pivot, &step.args.for_each) {
            sink.at(span, "a pivot happens as a whole, and this step may happen in part; put the pivot behind it");
        }
        no_way_back.push(is_pivot(index) || behind(index).is_some());
    }
    no_way_back
}
