//! A saga made of closures, and a log of what they did.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::memory::MemoryTx;
use amends::{
    Call, Capability, Compensation, Data, Definition, Json, Probe, ProbeFuture, RetryPolicy, Step, StepError,
    StepFuture, StepKind, StepResult, Steps, reject,
};
use tokio::sync::Semaphore;

pub(crate) type Body = Arc<dyn for<'a> Fn(Capability<'a, MemoryTx>, Data) -> StepFuture<'a> + Send + Sync>;

/// What ran, in order: `charge`, `undo charge`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn push(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|other| *other == line).count()
    }
}

/// The definition and the bodies of a test's saga. Each step comes after the one before it, unless told otherwise.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) definition: Definition,
    pub(crate) log: Log,
    forward: Vec<Body>,
    undo: HashMap<usize, Body>,
    /// What lets each probe through, and what it finds.
    probe: HashMap<usize, (Arc<Semaphore>, Json)>,
}

impl Script {
    pub(crate) fn new() -> Self {
        let definition = Definition::new("script".into(), 1, Vec::new().into());
        Self { definition, log: Log::default(), forward: Vec::new(), undo: HashMap::new(), probe: HashMap::new() }
    }

    pub(crate) fn named(mut self, name: &'static str) -> Self {
        self.definition.name = name.into();
        self
    }

    pub(crate) fn call(self, name: &'static str, body: Body) -> Self {
        self.step(StepKind::Call, name, body)
    }

    pub(crate) fn tx(self, name: &'static str, body: Body) -> Self {
        self.step(StepKind::Tx, name, body)
    }

    fn step(mut self, kind: StepKind, name: &'static str, body: Body) -> Self {
        let after: Vec<_> = self.forward.len().checked_sub(1).into_iter().collect();
        self.definition.steps.to_mut().push(Step {
            after: after.into(),
            retry: RetryPolicy { attempts: Some(3), ..RetryPolicy::STEP },
            ..Step::new(name.into(), kind)
        });
        self.forward.push(body);
        self
    }

    fn last(&mut self) -> &mut Step {
        self.definition.steps.to_mut().last_mut().unwrap()
    }

    pub(crate) fn after(mut self, steps: &[usize]) -> Self {
        self.last().after = steps.to_vec().into();
        self
    }

    pub(crate) fn pivot(mut self) -> Self {
        self.last().pivot = true;
        self
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.last().timeout = timeout;
        self
    }

    /// So many attempts, with exactly this pause between them, up to the jitter of half of it.
    pub(crate) fn retry(mut self, attempts: u32, pause: Duration) -> Self {
        self.last().retry = RetryPolicy { attempts: Some(attempts), first: pause, longest: pause, ..RetryPolicy::STEP };
        self
    }

    /// A compensation that runs without knowing whether the step happened.
    pub(crate) fn undo(self, kind: StepKind, body: Body) -> Self {
        self.undo_of(kind, false, body)
    }

    /// A compensation that needs the step's output.
    pub(crate) fn undo_output(self, kind: StepKind, body: Body) -> Self {
        self.undo_of(kind, true, body)
    }

    fn undo_of(mut self, kind: StepKind, needs_output: bool, body: Body) -> Self {
        self.undo.insert(self.forward.len() - 1, body);
        self.last().compensation = Some(Compensation {
            needs_output,
            retry: RetryPolicy { attempts: Some(3), ..RetryPolicy::COMPENSATION },
            ..Compensation::new("undo".into(), kind)
        });
        self
    }

    /// A probe that waits until the test lets it through, and then finds that the step happened.
    pub(crate) fn probe(mut self, gate: &Arc<Semaphore>, found: Json, timeout: Duration) -> Self {
        self.probe.insert(self.forward.len() - 1, (Arc::clone(gate), found));
        self.last().probe = Some(Probe { name: "find_out".into(), retry: RetryPolicy::STEP, timeout });
        self
    }
}

impl Steps<MemoryTx> for Script {
    fn execute<'a>(&'a self, step: usize, capability: Capability<'a, MemoryTx>, data: Data) -> StepFuture<'a> {
        self.log.push(&*self.definition.steps[step].name);
        self.forward[step](capability, data)
    }

    fn compensate<'a>(&'a self, step: usize, capability: Capability<'a, MemoryTx>, data: Data) -> StepFuture<'a> {
        self.log.push(format!("undo {}", self.definition.steps[step].name));
        self.undo[&step](capability, data)
    }

    fn probe<'a>(&'a self, step: usize, _: &'a Call, _: Data) -> ProbeFuture<'a> {
        self.log.push(format!("probe {}", self.definition.steps[step].name));
        let (gate, found) = &self.probe[&step];
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            Ok(Some(found.clone()))
        })
    }
}

/// A body that uses what it is given.
pub(crate) fn body<F>(body: F) -> Body
where
    F: for<'a> Fn(Capability<'a, MemoryTx>, Data) -> StepFuture<'a> + Send + Sync + 'static,
{
    Arc::new(body)
}

/// A body that looks at its call only.
pub(crate) fn calls(answer: impl Fn(&Call) -> StepResult<Json> + Send + Sync + Clone + 'static) -> Body {
    body(move |capability, _| {
        let answer = answer.clone();
        Box::pin(async move { answer(capability.call()) })
    })
}

/// A body that looks at its transaction only.
pub(crate) fn writes(answer: impl Fn(&mut MemoryTx) -> StepResult<Json> + Send + Sync + Clone + 'static) -> Body {
    body(move |capability, _| {
        let answer = answer.clone();
        Box::pin(async move { answer(capability.tx()) })
    })
}

pub(crate) fn answers(answer: impl Fn() -> StepResult<Json> + Send + Sync + Clone + 'static) -> Body {
    body(move |_, _| {
        let answer = answer.clone();
        Box::pin(async move { answer() })
    })
}

pub(crate) fn ok() -> Body {
    answers(|| Ok(Json::null()))
}

pub(crate) fn rejects() -> Body {
    answers(|| Err(reject("no")))
}

pub(crate) fn fails() -> Body {
    answers(|| Err(StepError::retry("oops")))
}

/// Fails so many times, then behaves like another body.
pub(crate) fn fails_first(times: u32, then: Body) -> Body {
    let left = AtomicU32::new(times);
    body(move |capability, data| {
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Box::pin(async { Err(StepError::retry("oops")) }),
            Err(_) => then(capability, data),
        }
    })
}

pub(crate) fn hangs() -> Body {
    body(|_, _| Box::pin(pending()))
}

/// Hangs the first time, as if the worker died under it, then behaves like another body.
pub(crate) fn hangs_first(then: Body) -> Body {
    let first = AtomicU32::new(1);
    body(move |capability, data| match first.swap(0, Ordering::SeqCst) {
        1 => Box::pin(pending()),
        _ => then(capability, data),
    })
}

pub(crate) fn takes(time: Duration) -> Body {
    body(move |_, _| {
        Box::pin(async move {
            tokio::time::sleep(time).await;
            Ok(Json::null())
        })
    })
}

/// Waits until the test lets it through.
pub(crate) fn waits_for(gate: &Arc<Semaphore>, then: Body) -> Body {
    let gate = Arc::clone(gate);
    body(move |capability, data| {
        let (gate, then) = (Arc::clone(&gate), Arc::clone(&then));
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            then(capability, data).await
        })
    })
}
