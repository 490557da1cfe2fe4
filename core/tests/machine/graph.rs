//! Random definitions that obey the rules.

use std::time::Duration;

use amends::{Compensation, Definition, ForEach, Probe, RetryPolicy, Step, StepKind};
use fastrand::Rng;

/// Steps `s0`, `s1`, … with random edges, kinds, options, compensations, pivots, savepoints and alternates.
pub(crate) fn random(rng: &mut Rng, steps: usize) -> Definition {
    let mut growth = Growth { density: rng.f64() / 2.0, rng, steps: Vec::new(), most: steps, alternates: 0 };
    growth.alternates = growth.rng.usize(0..4);
    while growth.room() > 0 {
        let (visible, alternates) = ((0..growth.steps.len()).collect(), growth.alternates);
        growth.grow(visible, None, steps);
        // What is inside a path may not be seen from outside it, so that a second round would break the rules.
        assert!(growth.room() == 0 || alternates == 0);
    }
    let steps = growth.steps;
    let mut definition = Definition::new("random".into(), 1, Vec::new().into());
    definition.deadline = (rng.u8(0..4) == 0).then(|| Duration::from_millis(rng.u64(1..8000)));
    definition.steps = steps.into();
    for index in 0..definition.steps.len() {
        let past_pivot = definition.ancestors(index).any(|i| definition.steps[i].pivot);
        let pivot = !past_pivot && rng.u8(0..10) == 0;
        let undo = (rng.u8(0..4) > 0).then(|| compensation(rng, definition.steps[index].kind));
        set_pivot(&mut definition, index, pivot, undo.clone());
        if pivot && definition.validate().is_err() {
            set_pivot(&mut definition, index, false, undo);
        }
    }
    definition.validate().unwrap();
    definition
}

fn set_pivot(definition: &mut Definition, index: usize, pivot: bool, undo: Option<Compensation>) {
    let past_pivot = definition.ancestors(index).any(|i| definition.steps[i].pivot);
    let step = &mut definition.steps.to_mut()[index];
    step.pivot = pivot;
    step.compensation = undo.filter(|_| !pivot && !past_pivot);
    if pivot {
        step.for_each = None;
    }
    if past_pivot {
        step.alternate = None;
    }
}

struct Growth<'a> {
    rng: &'a mut Rng,
    density: f64,
    steps: Vec<Step>,
    most: usize,
    /// How many more steps may have an alternate.
    alternates: usize,
}

impl Growth<'_> {
    fn room(&self) -> usize {
        self.most - self.steps.len()
    }

    /// Up to `count` steps behind the `savepoint`, and behind those of `visible` that chance will have it.
    fn grow(&mut self, mut visible: Vec<usize>, savepoint: Option<usize>, count: usize) -> Vec<usize> {
        let mut grown = Vec::new();
        let limit = self.steps.len() + count.min(self.room());
        while self.steps.len() < limit {
            let room = limit - self.steps.len();
            if self.alternates > 0 && room >= 2 + usize::from(savepoint.is_none()) && self.rng.u8(0..3) == 0 {
                self.alternates -= 1;
                let new = self.fork(&visible, savepoint, room);
                grown.extend(new.iter().copied());
                visible.extend(new);
            } else {
                let step = self.plain(&visible, savepoint);
                grown.push(step);
                visible.push(step);
            }
        }
        grown
    }

    fn plain(&mut self, visible: &[usize], savepoint: Option<usize>) -> usize {
        let mut after: Vec<_> = visible.iter().copied().filter(|_| self.rng.f64() < self.density).collect();
        after.extend(savepoint.filter(|_| after.is_empty() || self.rng.bool()));
        self.push(after)
    }

    /// A savepoint, a path behind it and one or two alternates; what those outside may come after.
    fn fork(&mut self, visible: &[usize], outer: Option<usize>, room: usize) -> Vec<usize> {
        let mut seen = Vec::new();
        let savepoint = match outer {
            Some(outer) if room == 2 || self.rng.bool() => outer,
            _ => {
                let step = self.plain(visible, outer);
                self.steps[step].savepoint = true;
                seen.push(step);
                step
            }
        };
        let limit = self.steps.len() + room - seen.len();
        let mut end = self.path(savepoint, limit - self.steps.len() - 1);
        seen.push(end);
        let chain = 1 + self.rng.usize(0..2);
        for _ in 0..chain {
            if self.steps.len() < limit {
                let other = self.path(savepoint, limit - self.steps.len());
                self.steps[end].alternate = Some(other);
                end = other;
            }
        }
        seen
    }

    /// Its last step comes after all others of it.
    fn path(&mut self, savepoint: usize, room: usize) -> usize {
        let inner = self.rng.usize(0..room.min(4));
        let mut after = self.grow(vec![savepoint], Some(savepoint), inner);
        after.push(savepoint);
        self.push(after)
    }

    fn push(&mut self, mut after: Vec<usize>) -> usize {
        let (index, rng) = (self.steps.len(), &mut *self.rng);
        after.sort_unstable();
        after.dedup();
        let kind = kind(rng);
        let mut step = Step {
            after: after.into(),
            retry: RetryPolicy { attempts: Some(3), ..RetryPolicy::STEP },
            timeout: timeout(rng, kind),
            skippable: matches!(kind, StepKind::Tx | StepKind::Call) && rng.u8(0..4) == 0,
            child: (kind == StepKind::Child).then(|| "other".into()),
            ..Step::new(format!("s{index}").into(), kind)
        };
        if !kind.is_certain() && rng.u8(0..3) == 0 {
            step.probe = Some(Probe { name: "look".into(), retry: step.retry, timeout: step.timeout });
        }
        if kind != StepKind::Signal && rng.u8(0..6) == 0 {
            step.for_each = Some(ForEach { over: "input".into(), concurrency: rng.u32(1..4) });
        }
        if rng.u8(0..8) == 0 {
            step.delay = Duration::from_millis(rng.u64(1..5000));
        }
        self.steps.push(step);
        index
    }
}

fn kind(rng: &mut Rng) -> StepKind {
    match rng.u8(0..11) {
        0..3 => StepKind::Tx,
        3..7 => StepKind::Call,
        7..9 => StepKind::Request,
        9 => StepKind::Signal,
        _ => StepKind::Child,
    }
}

fn timeout(rng: &mut Rng, kind: StepKind) -> Duration {
    if kind.waits() && rng.bool() { Duration::MAX } else { Duration::from_millis(rng.u64(500..4000)) }
}

fn compensation(rng: &mut Rng, of: StepKind) -> Compensation {
    let kind = match rng.u8(0..6) {
        0..3 if of == StepKind::Child => StepKind::Child,
        0 | 1 => StepKind::Tx,
        2 => StepKind::Request,
        _ => StepKind::Call,
    };
    Compensation {
        needs_output: kind != StepKind::Child && rng.bool(),
        retry: RetryPolicy { attempts: Some(3), ..RetryPolicy::COMPENSATION },
        timeout: timeout(rng, kind),
        ..Compensation::new("undo".into(), kind)
    }
}
