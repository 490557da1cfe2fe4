//! Runs one saga once, as a unit test does, with the faults that the test wants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use chrono::DateTime;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::moves::{Effect, Faults, How, Move};
use super::simulation::{Flight, Simulation};
use super::stage::{Kind, Stage, participant, root};
use super::timeline::Log;
use super::{Environment, Handle, TestTx, World, journal};
use crate::event::{Event, Outcome, Rejection};
use crate::machine::Phase;
use crate::saga::{Saga, Steps};
use crate::{Json, JsonError, Message, OutboxMessage, StepRef, list};

/// Runs a saga once, without a store, in virtual time.
///
/// ```
/// # use amends::testing::Harness;
/// # use amends::{Call, StepResult, saga};
/// struct Buy;
///
/// #[saga(name = "buy", version = 1, input = i64)]
/// impl Buy {
///     #[step(call, compensate = refund)]
///     async fn charge(&self, _call: &Call, input: &i64) -> StepResult<i64> { Ok(*input) }
///     #[step(call, pivot)]
///     async fn ship(&self, _call: &Call) -> StepResult<()> { Ok(()) }
///     #[compensate]
///     async fn refund(&self, _call: &Call, charge: Option<&i64>) -> StepResult<()> { Ok(()) }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let run = Harness::new(Buy).fail_at(Buy::SHIP).repeat_every_step().run(&700).await;
/// assert_eq!(run.log(), "\
/// charge: 700
/// ship: rejected, failed_by_test
/// charge: undone
/// compensated
/// ");
/// # }
/// ```
#[must_use]
pub struct Harness<G, E: Environment = World<(), ()>> {
    saga: Arc<G>,
    stage: Stage<E>,
    faults: BTreeMap<(String, u8), VecDeque<How>>,
    crashes: BTreeSet<String>,
    signals: Vec<(String, Json)>,
    repeats: bool,
}

/// The code of the rejections that a test asks for.
const FAILED_BY_TEST: &str = "failed_by_test";

/// So many moves are no saga that ends.
const LONGEST: usize = 100_000;

impl<G: Saga + Steps<TestTx<()>>> Harness<G> {
    /// A saga without tx steps.
    pub fn new(saga: G) -> Self {
        Self::on(World::new(Handle::new(()), ()), saga)
    }
}

impl<G, D> Harness<G, World<(), D>>
where
    G: Saga + Steps<TestTx<D>>,
    D: Clone + std::hash::Hash + Send + 'static,
{
    /// A saga with tx steps on a database that is a value.
    pub fn with_database(saga: G, database: D) -> Self {
        Self::on(World::new(Handle::new(()), database), saga)
    }
}

impl<G: Saga + Steps<E::Tx>, E: Environment> Harness<G, E> {
    /// A saga in this environment.
    pub fn on(env: E, saga: G) -> Self {
        Self {
            saga: Arc::new(saga),
            stage: Stage::new(env, false),
            faults: BTreeMap::new(),
            crashes: BTreeSet::new(),
            signals: Vec::new(),
            repeats: false,
        }
    }

    /// The step is refused, without running.
    pub fn fail_at<T>(self, step: StepRef<T>) -> Self {
        self.goes(step.name(), Phase::Forward, How::Reject)
    }

    /// The next attempt at the step fails, and is tried again. Twice for two attempts.
    pub fn retry_at<T>(self, step: StepRef<T>) -> Self {
        self.goes(step.name(), Phase::Forward, How::Fail)
    }

    /// Nobody knows whether the step took effect, and there is no other attempt.
    pub fn time_out_at<T>(self, step: StepRef<T>, effect: Effect) -> Self {
        self.goes(step.name(), Phase::Forward, How::TimeOut(effect))
    }

    /// The worker dies after the step took effect, before that is recorded. A tx step is rolled back.
    pub fn crash_at<T>(mut self, step: StepRef<T>) -> Self {
        self.crashes.insert(step.name().to_owned());
        self
    }

    /// The next attempt at the compensation of the step fails, and is tried again.
    pub fn retry_compensation_of<T>(self, step: StepRef<T>) -> Self {
        self.goes(step.name(), Phase::Undo, How::Fail)
    }

    /// The compensation of the step fails for the last time, so that the saga is parked.
    pub fn park_compensation_of<T>(self, step: StepRef<T>) -> Self {
        self.goes(step.name(), Phase::Undo, How::GiveUp)
    }

    /// Each body runs twice under the same key, as after a crash: its effect must happen once. The first run of a transaction
    /// is rolled back.
    pub fn repeat_every_step(mut self) -> Self {
        self.repeats = true;
        self
    }

    /// A saga that one of the steps starts.
    pub fn child<H: Saga + Steps<E::Tx>>(mut self, child: H) -> Self {
        let child: Arc<dyn Steps<E::Tx>> = Arc::new(child);
        self.stage.kinds.push(Kind::new(H::DEFINITION.clone(), Box::new(move || Arc::clone(&child))));
        self
    }

    /// Sends a signal, when the saga waits for it.
    ///
    /// # Panics
    /// Panics if the payload cannot be stored.
    pub fn signal<T: Serialize>(mut self, step: StepRef<T>, payload: &T) -> Self {
        let payload = Json::encode(payload).expect("the payload can be stored");
        self.signals.push((step.name().to_owned(), payload));
        self
    }

    /// Answers the requests of type `M`.
    pub fn reply<M: Message, R: Serialize>(
        mut self,
        answer: impl Fn(&M) -> Result<R, Rejection> + Send + 'static,
    ) -> Self {
        let answer = move |message: &M, _key: &str| Some(answer(message));
        self.stage.participants.insert(M::NAME.to_owned(), participant(answer));
        self
    }

    fn goes(mut self, step: &str, phase: Phase, how: How) -> Self {
        self.faults.entry((step.to_owned(), phase as u8)).or_default().push_back(how);
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// Panics if the input cannot be stored, if the definition is not sound, or if the saga does not end: it waits for a
    /// signal or a reply that nobody sends.
    pub async fn run(mut self, input: &G::Input) -> Run<E> {
        G::DEFINITION.validate().unwrap_or_else(|error| panic!("{error}"));
        let steps: Arc<dyn Steps<E::Tx>> = self.saga.clone();
        self.stage.kinds.insert(0, Kind::new(G::DEFINITION.clone(), Box::new(move || Arc::clone(&steps))));
        let signals = std::mem::take(&mut self.signals);
        let mut simulation = Simulation::new(root::<G>(input), DateTime::UNIX_EPOCH, Faults::NONE, signals);
        simulation.log = Log::reading();
        simulation.code = FAILED_BY_TEST;
        simulation.settle(&self.stage.kinds);
        for _ in 0..LONGEST {
            let Some(it) = self.next(&simulation) else { break };
            if let Err(wrong) = simulation.make(&mut self.stage, &it).await {
                panic!("{wrong}");
            }
        }
        if let Some(vain) = simulation.waits_in_vain(&self.stage) {
            panic!("{vain}");
        }
        Run { simulation, stage: self.stage }
    }

    fn next(&mut self, simulation: &Simulation) -> Option<Move> {
        for (saga, it) in simulation.sagas.iter().enumerate() {
            if let Some(flight) = it.flights.iter().position(|flight| flight.result.is_some()) {
                let name = it.flights[flight].name();
                let dies = it.flights[flight].phase == Phase::Forward && self.crashes.remove(&name);
                return Some(if dies { Move::Die } else { Move::Record { saga, flight, dies: false } });
            }
        }
        for (saga, it) in simulation.sagas.iter().enumerate() {
            if let Some(flight) = it.flights.first() {
                let how = self.how(saga, flight);
                return Some(Move::Run { saga, flight: 0, how, dies: false });
            }
        }
        simulation.moves(&self.stage).into_iter().next()
    }

    fn how(&mut self, saga: usize, flight: &Flight) -> How {
        let kind = if saga == 0 { self.stage.kinds.first() } else { None };
        let is_tx = kind.is_some_and(|kind| kind.body(flight.attempt.node.step, flight.phase) == crate::StepKind::Tx);
        if is_tx && flight.phase == Phase::Forward && self.crashes.remove(&flight.name()) {
            return How::DieBeforeCommit;
        }
        let wanted = self.faults.get_mut(&(flight.name(), flight.phase as u8)).and_then(VecDeque::pop_front);
        wanted.unwrap_or(if self.repeats && flight.phase != Phase::Probe { How::Twice } else { How::AsIs })
    }
}

impl<G, E: Environment> fmt::Debug for Harness<G, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness").field("faults", &self.faults).finish_non_exhaustive()
    }
}

/// A saga that has run.
pub struct Run<E: Environment> {
    simulation: Simulation,
    stage: Stage<E>,
}

impl<E: Environment> Run<E> {
    /// How it ended; `None` if it is parked.
    pub fn outcome(&self) -> Option<Outcome> {
        self.simulation.outcome()
    }

    /// What was recorded, a line each, for a golden test.
    pub fn log(&self) -> String {
        let mut text = String::new();
        for line in self.simulation.events.iter().filter_map(journal::line) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// Everything that was recorded of the saga.
    pub fn events(&self) -> &[Event] {
        &self.simulation.events
    }

    /// What a step returned, if it succeeded.
    ///
    /// # Errors
    /// Returns [`JsonError`] if that is of another type.
    pub fn output<T: DeserializeOwned>(&self, step: StepRef<T>) -> Result<Option<T>, JsonError> {
        let (saga, definition) = (&self.simulation.sagas[0], &self.stage.kinds[0].definition);
        let Some((index, _)) = definition.step(step.name()) else { return Ok(None) };
        list::output(definition, &saga.state, index, None)?.map(|output| output.decode()).transpose()
    }

    /// Why it was undone, if a step was rejected.
    pub fn rejection(&self) -> Option<&Rejection> {
        self.simulation.sagas[0].state.rejection().map(|(_, rejection)| rejection)
    }

    /// Every message that was published through the outbox.
    pub fn published(&self) -> &[OutboxMessage] {
        &self.simulation.published
    }

    /// The world as it is now.
    pub fn environment(&mut self) -> &mut E {
        &mut self.stage.env
    }
}

impl<D> Run<World<(), D>>
where
    D: Clone + std::hash::Hash + Send + 'static,
{
    /// The database as it is now.
    pub fn database(&self) -> &D {
        self.stage.env.database()
    }
}

impl<E: Environment> fmt::Debug for Run<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.log())
    }
}
