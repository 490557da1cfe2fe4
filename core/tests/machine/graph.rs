//! Random definitions that obey the rules.

use std::time::Duration;

use amends::{Compensation, Definition, RetryPolicy, Step, StepKind};
use fastrand::Rng;

/// Steps `s0`, `s1`, … with random edges, kinds, compensations and legally placed pivots.
pub(crate) fn random(rng: &mut Rng, steps: usize) -> Definition {
    let mut definition = Definition::new("random".into(), 1, Vec::new().into());
    let density = rng.f64();
    for index in 0..steps {
        let after: Vec<_> = (0..index).filter(|_| rng.f64() < density / 2.0).collect();
        let mut step = Step {
            after: after.into(),
            compensation: (rng.u8(0..4) > 0).then(|| compensation(rng)),
            pivot: rng.u8(0..8) == 0,
            retry: RetryPolicy { attempts: Some(3), ..RetryPolicy::STEP },
            timeout: Duration::from_secs(1),
            ..Step::new(format!("s{index}").into(), kind(rng))
        };
        definition.steps.to_mut().push(step.clone());
        let past_pivot = definition.ancestors(index).any(|i| definition.steps[i].pivot);
        step.pivot &= !past_pivot;
        if past_pivot || step.pivot {
            step.compensation = None;
        }
        definition.steps.to_mut()[index] = step;
    }
    definition.validate().unwrap();
    definition
}

fn kind(rng: &mut Rng) -> StepKind {
    if rng.u8(0..3) == 0 { StepKind::Tx } else { StepKind::Call }
}

fn compensation(rng: &mut Rng) -> Compensation {
    Compensation {
        needs_output: rng.bool(),
        retry: RetryPolicy { attempts: Some(3), ..RetryPolicy::COMPENSATION },
        timeout: Duration::from_secs(1),
        ..Compensation::new("undo".into(), kind(rng))
    }
}
