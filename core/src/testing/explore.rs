//! Explorations in memory: a world of fakes, and what must hold in it.

use std::hash::Hash;

use serde::Serialize;

use super::explorer::{Explorer, When};
use super::world::{Handle, Scene, World};
use super::{Report, TestTx, Violation};
use crate::saga::{Saga, Steps};
use crate::{Message, Rejection};

/// Explores a saga in a world of fakes: every crash, every outcome of every step, in every order.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use amends::testing::{Handle, explore};
/// use amends::{Call, StepResult, saga};
///
/// /// What each idempotency key was charged.
/// #[derive(Clone, Default, Hash)]
/// struct Bank { charged: BTreeMap<String, i64> }
///
/// struct Buy { bank: Handle<Bank> }
///
/// #[saga(name = "buy", version = 1, input = i64)]
/// impl Buy {
///     #[step(call, compensate = refund)]
///     async fn charge(&self, call: &Call, input: &i64) -> StepResult<()> {
///         self.bank.with(|bank| bank.charged.insert(call.step_key().to_owned(), *input));
///         Ok(())
///     }
///     #[step(call, compensate = none)]
///     async fn ship(&self, _call: &Call) -> StepResult<()> { Ok(()) }
///     #[compensate]
///     async fn refund(&self, call: &Call, charge: Option<&()>) -> StepResult<()> {
///         self.bank.with(|bank| bank.charged.remove(call.step_key()));
///         Ok(())
///     }
/// }
///
/// let report = explore(Bank::default())
///     .saga(|bank| Buy { bank: bank.clone() }, &700)
///     .crashes(1)
///     .always("it is paid once", |it| it.world.charged.len() <= 1)
///     .when_completed("it is paid", |it| it.world.charged.values().sum::<i64>() == 700)
///     .when_compensated("nothing is paid", |it| it.world.charged.is_empty())
///     .check();
/// assert!(report.is_exhaustive());
/// ```
pub fn explore<W: Clone + Hash + Send + 'static>(world: W) -> Explorer<World<W, ()>> {
    explore_with_database(world, ())
}

/// As [`explore`], for a saga with tx steps on a database that is a value of type `D`: they take a
/// [`TestTx<D>`](super::TestTx).
pub fn explore_with_database<W, D>(world: W, database: D) -> Explorer<World<W, D>>
where
    W: Clone + Hash + Send + 'static,
    D: Clone + Hash + Send + 'static,
{
    Explorer::new(World::new(Handle::new(world), database))
}

impl<W, D> Explorer<World<W, D>>
where
    W: Clone + Hash + Send + 'static,
    D: Clone + Hash + Send + 'static,
{
    /// The saga, and what it is started with. It is made anew for every body that runs: nothing but the journal outlives a
    /// step, so what it keeps must be in the world.
    pub fn saga<G: Saga + Steps<TestTx<D>>>(
        self,
        make: impl Fn(&Handle<W>) -> G + Send + 'static,
        input: &G::Input,
    ) -> Self {
        let world = self.stage.env.handle();
        self.saga_made(move || make(&world), input)
    }

    /// A saga that one of the steps starts.
    pub fn child<G: Saga + Steps<TestTx<D>>>(self, make: impl Fn(&Handle<W>) -> G + Send + 'static) -> Self {
        let world = self.stage.env.handle();
        self.child_made(move || make(&world))
    }

    /// Something that must hold at every moment.
    pub fn always(self, name: &str, rule: impl Fn(&Scene<'_, W, D>) -> bool + Send + 'static) -> Self {
        self.rule(When::Always, name, Box::new(rule))
    }

    /// Something that must hold when the saga has completed, and nothing is under way any more.
    pub fn when_completed(self, name: &str, rule: impl Fn(&Scene<'_, W, D>) -> bool + Send + 'static) -> Self {
        self.rule(When::Completed, name, Box::new(rule))
    }

    /// Something that must hold when the saga was undone, and nothing is under way any more.
    pub fn when_compensated(self, name: &str, rule: impl Fn(&Scene<'_, W, D>) -> bool + Send + 'static) -> Self {
        self.rule(When::Compensated, name, Box::new(rule))
    }

    /// Answers the requests of type `M`; the key is the same however often the request comes. `None` leaves it without an
    /// answer.
    pub fn participant<M: Message, R: Serialize>(
        self,
        answer: impl Fn(&Handle<W>, &M, &str) -> Option<Result<R, Rejection>> + Send + 'static,
    ) -> Self {
        let world = self.stage.env.handle();
        self.participant_made(move |message: &M, key: &str| answer(&world, message, key))
    }

    /// Explores. Use it in a test.
    ///
    /// # Panics
    /// Panics with the simplest schedule that breaks something, as a test should.
    pub fn check(self) -> Report {
        match self.run() {
            Ok(report) => {
                println!("{report}");
                report
            }
            Err(violation) => panic!("{violation}"),
        }
    }

    /// Explores.
    ///
    /// # Errors
    /// Returns the simplest schedule that breaks something: the one with the fewest faults, and of those the shortest.
    ///
    /// # Panics
    /// Panics if there is no saga, or inside of an asynchronous runtime.
    pub fn run(self) -> Result<Report, Box<Violation>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime of one thread needs nothing").block_on(self.explore())
    }
}
