//! A saga made of closures, and a log of what they did.

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::store::NewSaga;
use amends::{
    Begin, Call, Capability, Compensation, Data, Definition, ForEach, Json, Message, OutboxMessage, Probe, ProbeFuture,
    RetryPolicy, Step, StepError, StepFuture, StepKind, StepResult, Steps, reject,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Barrier, Semaphore};

use super::Tx;

pub(crate) type Body = Arc<dyn for<'a> Fn(Capability<'a, Tx>, Data) -> StepFuture<'a> + Send + Sync>;
type Beginning = Arc<dyn Fn() -> Begin + Send + Sync>;
type Finding = Arc<dyn Fn() -> StepResult<Option<Json>> + Send + Sync>;

/// Fast enough for a test that waits for it.
pub(crate) const PAUSE: Duration = Duration::from_millis(15);

/// What ran, in order: `charge`, `undo charge`, `probe charge`; of a step that runs for every item, `pick "pen"`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn push(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn sorted(&self) -> Vec<String> {
        let mut lines = self.lines();
        lines.sort();
        lines
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|other| *other == line).count()
    }
}

/// What a request of these tests asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ask(pub(crate) String);

impl Message for Ask {
    const NAME: &'static str = "ask";
    type Encoding = amends::AsJson;
}

#[derive(Clone, Default)]
struct Bodies {
    forward: Option<Body>,
    undo: Option<Body>,
    begin: Option<Beginning>,
    begin_undo: Option<Beginning>,
    probe: Option<Finding>,
    accept: Option<fn(&Json) -> StepResult<()>>,
    upcast: Option<fn(&Data) -> StepResult<Json>>,
}

/// The definition and the bodies of a test's saga. Each step comes after the one before it, unless told otherwise.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) definition: Definition,
    pub(crate) log: Log,
    bodies: Vec<Bodies>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self::named("script")
    }

    pub(crate) fn named(name: &'static str) -> Self {
        let definition = Definition::new(name.into(), 1, Vec::new().into());
        Self { definition, log: Log::default(), bodies: Vec::new() }
    }

    pub(crate) fn called(mut self, name: &'static str) -> Self {
        self.definition.name = name.into();
        self
    }

    pub(crate) fn call(self, name: &'static str, body: Body) -> Self {
        self.step(StepKind::Call, name, Bodies { forward: Some(body), ..Bodies::default() })
    }

    pub(crate) fn tx(self, name: &'static str, body: Body) -> Self {
        self.step(StepKind::Tx, name, Bodies { forward: Some(body), ..Bodies::default() })
    }

    pub(crate) fn request(self, name: &'static str) -> Self {
        self.step(StepKind::Request, name, Bodies { begin: Some(asks(name)), ..Bodies::default() })
    }

    pub(crate) fn signal(self, name: &'static str) -> Self {
        let listen: Beginning = Arc::new(|| Begin::Listen);
        self.step(StepKind::Signal, name, Bodies { begin: Some(listen), ..Bodies::default() })
    }

    pub(crate) fn child(self, name: &'static str, child: &Self) -> Self {
        let definition = child.definition.clone();
        let started = definition.name.clone();
        let begin: Beginning = Arc::new(move || Begin::Saga(Box::new(NewSaga::new(&definition, Json::null()))));
        let mut script = self.step(StepKind::Child, name, Bodies { begin: Some(begin), ..Bodies::default() });
        script.last().child = Some(started);
        script
    }

    fn step(mut self, kind: StepKind, name: &'static str, bodies: Bodies) -> Self {
        let after: Vec<_> = self.bodies.len().checked_sub(1).into_iter().collect();
        let retry = if kind.waits() { RetryPolicy::ONCE } else { retry(3) };
        self.definition.steps.to_mut().push(Step { after: after.into(), retry, ..Step::new(name.into(), kind) });
        self.bodies.push(bodies);
        self
    }

    fn last(&mut self) -> &mut Step {
        self.definition.steps.to_mut().last_mut().unwrap()
    }

    fn last_bodies(&mut self) -> &mut Bodies {
        self.bodies.last_mut().unwrap()
    }

    /// Changes the last step.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Step)) -> Self {
        change(self.last());
        self
    }

    pub(crate) fn after(self, steps: &[&str]) -> Self {
        let indices: Vec<_> = steps.iter().map(|name| self.definition.step(name).unwrap().0).collect();
        self.with(|step| step.after = indices.into())
    }

    pub(crate) fn reads(self, names: &'static [&'static str]) -> Self {
        self.with(|step| step.reads = names.iter().map(|name| (*name).into()).collect())
    }

    pub(crate) fn pivot(self) -> Self {
        self.with(|step| step.pivot = true)
    }

    pub(crate) fn timeout(self, timeout: Duration) -> Self {
        self.with(|step| step.timeout = timeout)
    }

    pub(crate) fn attempts(self, attempts: u32) -> Self {
        self.with(|step| step.retry = retry(attempts))
    }

    pub(crate) fn skippable(self) -> Self {
        self.with(|step| step.skippable = true)
    }

    pub(crate) fn savepoint(self) -> Self {
        self.with(|step| step.savepoint = true)
    }

    /// The index of the step that is taken instead, further down.
    pub(crate) fn alternate(self, step: usize) -> Self {
        self.with(|it| it.alternate = Some(step))
    }

    pub(crate) fn each(self, over: &'static str, concurrency: u32) -> Self {
        self.with(|step| step.for_each = Some(ForEach { over: over.into(), concurrency }))
    }

    /// An answer of another type is refused.
    pub(crate) fn accepts<T: DeserializeOwned>(mut self) -> Self {
        self.last_bodies().accept = Some(|answer| answer.decode::<T>().map(drop).map_err(StepError::Data));
        self
    }

    /// A compensation that runs without knowing whether the step happened.
    pub(crate) fn undo(mut self, body: Body) -> Self {
        let kind = if self.last().kind == StepKind::Tx { StepKind::Tx } else { StepKind::Call };
        self.last_bodies().undo = Some(body);
        self.undone_by(kind, false)
    }

    /// A compensation that needs the step's output.
    pub(crate) fn undo_output(mut self, body: Body) -> Self {
        self.last_bodies().undo = Some(body);
        self.undone_by(StepKind::Call, true)
    }

    pub(crate) fn undo_by_request(mut self) -> Self {
        self.last_bodies().begin_undo = Some(asks("undo"));
        self.undone_by(StepKind::Request, false)
    }

    pub(crate) fn undo_child(self) -> Self {
        self.undone_by(StepKind::Child, false)
    }

    fn undone_by(self, kind: StepKind, needs_output: bool) -> Self {
        self.with(|step| {
            let name = format!("undo_{}", step.name).into();
            step.compensation = Some(Compensation { needs_output, retry: retry(3), ..Compensation::new(name, kind) });
        })
    }

    pub(crate) fn undo_reads(self, names: &'static [&'static str]) -> Self {
        self.with(|step| step.compensation.as_mut().unwrap().reads = names.iter().map(|name| (*name).into()).collect())
    }

    pub(crate) fn probe(mut self, find: impl Fn() -> StepResult<Option<Json>> + Send + Sync + 'static) -> Self {
        self.last_bodies().probe = Some(Arc::new(find));
        let timeout = Definition::DEFAULT_TIMEOUT;
        self.with(|step| step.probe = Some(Probe { name: "find_out".into(), retry: retry(2), timeout }))
    }

    pub(crate) fn bounded(mut self, most: u32) -> Self {
        self.definition.concurrency = Some(most);
        self
    }

    /// What is made up for a saga that is past the step, and older.
    pub(crate) fn upcast(mut self, make_up: fn(&Data) -> StepResult<Json>) -> Self {
        self.last_bodies().upcast = Some(make_up);
        self.with(|step| step.upcast = true)
    }

    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.definition.deadline = Some(deadline);
        self
    }

    fn note(&self, what: &str, step: usize, data: &Data) {
        let it = &self.definition.steps[step];
        let item =
            it.for_each.as_ref().map_or(String::new(), |_| format!(" {}", data.item::<serde_json::Value>().unwrap()));
        self.log.push(format!("{what}{}{item}", it.name));
    }
}

impl Steps<Tx> for Script {
    fn execute<'a>(&'a self, step: usize, capability: Capability<'a, Tx>, data: Data) -> StepFuture<'a> {
        self.note("", step, &data);
        self.bodies[step].forward.as_ref().unwrap()(capability, data)
    }

    fn compensate<'a>(&'a self, step: usize, capability: Capability<'a, Tx>, data: Data) -> StepFuture<'a> {
        self.note("undo ", step, &data);
        self.bodies[step].undo.as_ref().unwrap()(capability, data)
    }

    fn begin(&self, step: usize, undo: bool, data: Data) -> StepResult<Begin> {
        self.note(if undo { "begin undo " } else { "begin " }, step, &data);
        let bodies = &self.bodies[step];
        let begin = if undo { &bodies.begin_undo } else { &bodies.begin };
        Ok(begin.as_ref().unwrap()())
    }

    fn accept(&self, step: usize, answer: &Json) -> StepResult<()> {
        self.bodies[step].accept.map_or(Ok(()), |accept| accept(answer))
    }

    fn upcast(&self, step: usize, data: Data) -> StepResult<Json> {
        self.log.push(format!("make up {}", self.definition.steps[step].name));
        self.bodies[step].upcast.unwrap()(&data)
    }

    fn probe<'a>(&'a self, step: usize, _: &'a Call, data: Data) -> ProbeFuture<'a> {
        self.note("probe ", step, &data);
        let found = self.bodies[step].probe.as_ref().unwrap()();
        Box::pin(async move { found })
    }
}

pub(crate) fn retry(attempts: u32) -> RetryPolicy {
    RetryPolicy { attempts: Some(attempts), first: PAUSE, longest: PAUSE, ..RetryPolicy::STEP }
}

pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Json {
    Json::encode(value).unwrap()
}

fn asks(what: &'static str) -> Beginning {
    Arc::new(move || Begin::Message(OutboxMessage::new(&Ask(what.to_owned())).unwrap()))
}

/// A body that uses what it is given.
pub(crate) fn body<F>(body: F) -> Body
where
    F: for<'a> Fn(Capability<'a, Tx>, Data) -> StepFuture<'a> + Send + Sync + 'static,
{
    Arc::new(body)
}

/// A body that looks at the saga's data only.
pub(crate) fn reads(answer: impl Fn(&Data) -> StepResult<Json> + Send + Sync + 'static) -> Body {
    body(move |_, data| {
        let answer = answer(&data);
        Box::pin(async move { answer })
    })
}

/// A body that looks at its call only.
pub(crate) fn calls(answer: impl Fn(&Call) -> StepResult<Json> + Send + Sync + 'static) -> Body {
    body(move |capability, _| {
        let answer = answer(capability.call());
        Box::pin(async move { answer })
    })
}

pub(crate) fn gives<T: Serialize>(value: T) -> Body {
    let value = json(&value);
    reads(move |_| Ok(value.clone()))
}

pub(crate) fn ok() -> Body {
    gives(())
}

pub(crate) fn rejects(code: &'static str) -> Body {
    reads(move |_| Err(reject(code)))
}

pub(crate) fn fails() -> Body {
    fails_with("oops")
}

pub(crate) fn fails_with(error: &'static str) -> Body {
    reads(move |_| Err(StepError::retry(error)))
}

/// Fails so many times, then behaves like another body.
pub(crate) fn fails_first(times: u32, then: Body) -> Body {
    first(times, fails(), then)
}

/// Behaves like one body so many times, then like another.
pub(crate) fn first(times: u32, first: Body, then: Body) -> Body {
    let left = AtomicU32::new(times);
    body(move |capability, data| {
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => first(capability, data),
            Err(_) => then(capability, data),
        }
    })
}

pub(crate) fn hangs() -> Body {
    body(|_, _| Box::pin(pending()))
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

/// Goes on only once all others that meet here are under way too.
pub(crate) fn meets(barrier: &Arc<Barrier>) -> Body {
    let barrier = Arc::clone(barrier);
    body(move |_, _| {
        let barrier = Arc::clone(&barrier);
        Box::pin(async move {
            barrier.wait().await;
            Ok(Json::null())
        })
    })
}

/// Writes a line into a log of the test.
pub(crate) fn notes(log: &Log, line: impl Fn(&Data) -> StepResult<String> + Send + Sync + 'static) -> Body {
    let log = log.clone();
    reads(move |data| {
        log.push(line(data)?);
        Ok(Json::null())
    })
}

/// Writes down what the last attempt is known to have returned: a compensation that does not need to know.
pub(crate) fn notes_output(log: &Log, step: usize) -> Body {
    notes(log, move |data| Ok(format!("{:?}", data.maybe_output::<serde_json::Value>(step)?.map(|it| it.to_string()))))
}
