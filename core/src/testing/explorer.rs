//! An exploration of one saga: which faults, which rules, how long.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;
use serde::Serialize;

use super::Environment;
use super::moves::{Effect, Faults};
use super::report::{Report, Violation};
use super::search::{Found, Search};
use super::simulation::Simulation;
use super::stage::{Kind, Stage, participant, root};
use super::timeline::Log;
use crate::saga::{Saga, Steps};
use crate::store::NewSaga;
use crate::{Json, Message, Rejection, StepRef};

/// When a rule must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At every moment.
    Always,
    /// When the saga has completed, and nothing is under way any more.
    Completed,
    /// When the saga was undone, and nothing is under way any more.
    Compensated,
    /// When the saga waits for an operator, and nothing is under way any more.
    Parked,
    /// Being parked itself breaks it.
    NeverParked,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::Completed => "when completed",
            Self::Compensated => "when compensated",
            Self::Parked => "when parked",
            Self::NeverParked => "never parked",
        })
    }
}

#[derive(Debug)]
pub(super) struct Rule<C> {
    pub(super) when: When,
    pub(super) name: String,
    pub(super) check: Option<C>,
}

/// How much is explored before the rest is sampled.
#[derive(Debug, Clone, Copy)]
pub enum Budget {
    /// So many runs, each to its end or to a moment that was seen before. The default is 200 000.
    Runs(u64),
    /// So long.
    Time(Duration),
}

impl Budget {
    pub(super) fn is_spent(self, runs: u64, began: Instant) -> bool {
        match self {
            Self::Runs(most) => runs >= most,
            Self::Time(most) => began.elapsed() >= most,
        }
    }
}

/// Explores what can become of a saga; see [`explore`](super::explore).
#[must_use]
pub struct Explorer<E: Environment> {
    pub(super) stage: Stage<E>,
    root: Option<NewSaga>,
    faults: Faults,
    signals: Vec<(String, Json)>,
    rules: Vec<Rule<E::Rule>>,
    budget: Budget,
}

impl<E: Environment> Explorer<E> {
    /// Explores in this environment.
    pub fn new(env: E) -> Self {
        let faults = Faults { rejections: 2, effects: Effect::ALL.to_vec(), ..Faults::NONE };
        Self {
            stage: Stage::new(env, true),
            root: None,
            faults,
            signals: Vec::new(),
            rules: Vec::new(),
            budget: Budget::Runs(200_000),
        }
    }

    /// The saga, and what it is started with. It is made anew for every body that runs: nothing but the journal outlives a
    /// step.
    ///
    /// # Panics
    /// Panics if the saga cannot run, or its input cannot be stored.
    pub fn saga_made<G: Saga + Steps<E::Tx>>(
        mut self,
        make: impl Fn() -> G + Send + 'static,
        input: &G::Input,
    ) -> Self {
        self.root = Some(root::<G>(input));
        self.stage.kinds.insert(0, kind(make));
        self
    }

    /// A saga that one of the steps starts.
    ///
    /// # Panics
    /// Panics if the saga cannot run.
    pub fn child_made<G: Saga + Steps<E::Tx>>(mut self, make: impl Fn() -> G + Send + 'static) -> Self {
        self.stage.kinds.push(kind(make));
        self
    }

    /// Answers the requests of type `M`; the key is the same however often the request comes. `None` leaves it without an
    /// answer.
    pub fn participant_made<M: Message, R: Serialize>(
        mut self,
        answer: impl Fn(&M, &str) -> Option<Result<R, Rejection>> + Send + 'static,
    ) -> Self {
        self.stage.participants.insert(M::NAME.to_owned(), participant(answer));
        self
    }

    /// How often the worker may die: before an effect, between an effect and its record, right after the record.
    pub fn crashes(mut self, most: u32) -> Self {
        self.faults.crashes = most;
        self
    }

    /// How often a worker may be taken for dead while it is not: the calls that it was about to make still arrive.
    pub fn zombies(mut self, most: u32) -> Self {
        self.faults.zombies = most;
        self
    }

    /// How often an attempt may fail and be tried again.
    pub fn transient(mut self, most: u32) -> Self {
        self.faults.transients = most;
        self
    }

    /// How often nobody may know whether a call took effect, its attempts being used up; and how often a reply comes too
    /// late.
    pub fn unknown(mut self, most: u32) -> Self {
        self.faults.unknowns = most;
        self
    }

    /// What may become of such a call. All three, unless you say otherwise.
    pub fn effects(mut self, effects: &[Effect]) -> Self {
        self.faults.effects = effects.to_vec();
        self
    }

    /// How often a step may be refused without running, so that the saga is undone. 2, unless you say otherwise.
    pub fn rejections(mut self, most: u32) -> Self {
        self.faults.rejections = most;
        self
    }

    /// How often a compensation may fail, before or after it took effect, and be tried again.
    pub fn compensation_faults(mut self, most: u32) -> Self {
        self.faults.compensation_faults = most;
        self
    }

    /// How often a compensation may fail for the last time, so that the saga is parked.
    pub fn stuck_compensations(mut self, most: u32) -> Self {
        self.faults.stuck_compensations = most;
        self
    }

    /// How often a request may arrive twice.
    pub fn duplicates(mut self, most: u32) -> Self {
        self.faults.duplicates = most;
        self
    }

    /// Sends a signal once, when the saga waits for it.
    ///
    /// # Panics
    /// Panics if the payload cannot be stored.
    pub fn signal<T: Serialize>(mut self, step: StepRef<T>, payload: &T) -> Self {
        let payload = Json::encode(payload).expect("the payload can be stored");
        self.signals.push((step.name().to_owned(), payload));
        self
    }

    /// Something that must hold.
    pub fn rule(mut self, when: When, name: &str, check: E::Rule) -> Self {
        self.rules.push(Rule { when, name: name.to_owned(), check: Some(check) });
        self
    }

    /// The saga must never need an operator.
    pub fn never_parked(mut self) -> Self {
        self.rules.push(Rule { when: When::NeverParked, name: String::new(), check: None });
        self
    }

    /// How much is explored before the rest is sampled.
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Runs every schedule to its end, also from moments that were seen before. It takes far longer, and finds no more unless
    /// the hash of the world leaves something out.
    pub fn without_pruning(mut self) -> Self {
        self.stage.prunes = false;
        self
    }

    /// Does not check that each call does the same when it runs twice in the same moment.
    pub fn allow_chance(mut self) -> Self {
        self.stage.repeats = false;
        self
    }

    /// Explores, on the runtime of the caller.
    ///
    /// # Errors
    /// Returns the simplest schedule that breaks something: the one with the fewest faults, and of those the shortest.
    ///
    /// # Panics
    /// Panics if there is no saga.
    pub async fn explore(mut self) -> Result<Report, Box<Violation>> {
        let saga = self.root.take().expect("say which saga: `.saga(…)`");
        let name = saga.name.clone();
        let root = Simulation::new(saga, DateTime::UNIX_EPOCH, self.faults, self.signals);
        let untouched = self.stage.env.save().await;
        let mut search = Search::new(&mut self.stage, &self.rules, self.budget);
        let begin = |search: &Search<'_, E>| {
            let mut root = root.clone();
            root.settle(&search.stage.kinds);
            root
        };
        if let Ok(replay) = std::env::var("AMENDS_REPLAY") {
            let mut path: Vec<u16> = replay.split('.').filter_map(|index| index.parse().ok()).collect();
            path.reverse();
            return Err(Box::new(
                tell(&mut search, begin, &untouched, &name, Found { broken: String::new(), faults: 0, path }).await,
            ));
        }
        let start = begin(&search);
        let (schedules, found, done) = search.explore(start).await;
        let (runs, states) = (search.runs, search.states);
        let mut sampled = None;
        let mut found = found;
        if !done && found.is_none() {
            let (walks, seed) = (runs / 4 + 1, seed());
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..walks {
                search.stage.env.restore(&untouched).await;
                let start = begin(&search);
                let (broken, mut path, _) = search.walk(start, |moves| Some(random.usize(..moves))).await;
                if let Some(broken) = broken {
                    path.reverse();
                    found = Some(Found { broken, faults: 0, path });
                    break;
                }
            }
            sampled = Some((walks, seed));
        }
        if let Some(found) = found {
            return Err(Box::new(tell(&mut search, begin, &untouched, &name, found).await));
        }
        let never = self.stage.seen.missing(self.stage.kinds.iter().map(|kind| &*kind.definition));
        Ok(Report { saga: name, schedules, runs, states, sampled, never })
    }
}

/// Runs the schedule once more, to tell it.
async fn tell<E: Environment>(
    search: &mut Search<'_, E>,
    begin: impl Fn(&Search<'_, E>) -> Simulation,
    untouched: &E::Saved,
    name: &str,
    found: Found,
) -> Violation {
    search.stage.env.restore(untouched).await;
    let mut start = begin(search);
    start.log = Log::reading();
    let mut path = found.path.iter().rev();
    let (broken, walked, end) = search.walk(start, |_| path.next().map(|index| usize::from(*index))).await;
    let (lines, hints) = end.log.into_parts();
    let replay = walked.iter().map(u16::to_string).collect::<Vec<_>>().join(".");
    let broken = match (broken, found.broken) {
        (None, broken) if broken.is_empty() => "this schedule holds".to_owned(),
        (Some(broken), _) | (None, broken) => broken,
    };
    Violation { saga: name.to_owned(), broken, lines, hints, replay, faults: found.faults }
}

fn seed() -> u64 {
    std::env::var("AMENDS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1987)
}

fn kind<T: crate::StepTransaction, G: Saga + Steps<T>>(make: impl Fn() -> G + Send + 'static) -> Kind<T> {
    if let Err(error) = G::DEFINITION.validate() {
        panic!("{error}");
    }
    Kind::new(G::DEFINITION.clone(), Box::new(move || Arc::new(make())))
}

impl<E: Environment> fmt::Debug for Explorer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explorer")
            .field("kinds", &self.stage.kinds)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}
