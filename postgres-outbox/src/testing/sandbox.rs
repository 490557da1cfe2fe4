//! A database in which a saga can be explored: whatever its tx steps write can be taken back, and nothing remains.

use std::fmt;
use std::hash::{Hash, Hasher};

use amends::StoreError;
use amends::testing::{Environment, Facts, Handle};
use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Executor, PgPool, Postgres, Transaction};

use crate::StepTx;
use crate::error::store_error;

/// An [`Environment`] for [`Explorer`](amends::testing::Explorer): a real database, its SQL and its constraints, and fakes of
/// type `W` for the services that the saga calls.
///
/// One transaction holds everything, and is never committed: a moment is a savepoint, and a tx step commits by releasing
/// one. So a schedule costs a few statements, and nothing remains. Deferred constraints are checked where a step would
/// commit. The application's rows must be in the database already, or be made with [`setup`](Self::setup).
///
/// What only a commit or a second session could show is out of its reach: deadlocks, serialisation failures,
/// `LISTEN`/`NOTIFY`; and `now()` stands still.
///
/// ```no_run
/// # use amends::testing::{Explorer, When};
/// # use amends_postgres::testing::{Sandbox, sql};
/// # use amends::{StepResult, saga};
/// # use amends_postgres::StepTx;
/// # struct Reserve;
/// # #[saga(name = "reserve", version = 1, input = i32)]
/// # impl Reserve {
/// #     #[step(tx, compensate = none)] async fn reserve(&self, tx: &mut StepTx) -> StepResult<()> { Ok(()) }
/// # }
/// # async fn example(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// let report = Explorer::new(Sandbox::open(&pool, ()).await?)
///     .saga_made(|| Reserve, &2)
///     .crashes(1)
///     .rule(When::Always, "stock is never negative", sql("select not exists (select from stock where free < 0)"))
///     .explore()
///     .await?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
pub struct Sandbox<W = ()> {
    world: Handle<W>,
    pool: PgPool,
    /// Lent to a tx step while that runs.
    tx: Option<Transaction<'static, Postgres>>,
    savepoints: usize,
    /// The query of the content that tells moments apart.
    content: Option<String>,
}

/// Something that must hold in a [`Sandbox`].
pub enum SandboxRule<W> {
    /// A query of one boolean.
    Sql(String),
    /// A look at the fakes.
    World(Box<dyn Fn(&W) -> bool>),
}

/// A query of one boolean that must be true.
pub fn sql<W>(query: &str) -> SandboxRule<W> {
    SandboxRule::Sql(query.to_owned())
}

/// A look at the fakes that must give true.
pub fn world<W>(look: impl Fn(&W) -> bool + 'static) -> SandboxRule<W> {
    SandboxRule::World(Box::new(look))
}

/// A moment in a [`Sandbox`].
#[derive(Debug, Clone)]
pub struct SandboxMoment<W> {
    savepoint: usize,
    world: W,
}

const GONE: &str = "the body of a step ended the sandbox's transaction by itself";

impl<W: Clone + Hash + Send + 'static> Sandbox<W> {
    /// Opens the transaction on a connection of the pool.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn open(pool: &PgPool, world: W) -> Result<Self, StoreError> {
        let mut tx = pool.begin().await.map_err(store_error)?;
        tx.execute("set local jit = off").await.map_err(store_error)?;
        Ok(Self { world: Handle::new(world), pool: pool.clone(), tx: Some(tx), savepoints: 0, content: None })
    }

    /// Makes rows that the saga finds.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn setup(mut self, sql: &str) -> Result<Self, StoreError> {
        self.run(sql).await.map_err(store_error)?;
        Ok(self)
    }

    /// Every table that the saga writes to. With them a moment that was seen before is known, and not explored again; without
    /// them every schedule is run to its end.
    #[must_use]
    pub fn tables(mut self, tables: &[&str]) -> Self {
        let content = |table: &&str| format!("select sum(hashtextextended(t::text, 0))::text from {table} t");
        self.content = Some(tables.iter().map(content).collect::<Vec<_>>().join(" union all "));
        self
    }

    /// The fakes, for the saga.
    pub fn world(&self) -> Handle<W> {
        self.world.clone()
    }

    fn tx(&mut self) -> &mut Transaction<'static, Postgres> {
        self.tx.as_mut().expect("one transaction of a step is open at a time")
    }

    async fn run(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        self.tx().execute(AssertSqlSafe(sql.to_owned())).await.map(drop)
    }

    /// Where a deferred constraint would stop the commit.
    async fn check_deferred(&mut self) -> Result<(), sqlx::Error> {
        self.run("savepoint deferred; set constraints all immediate; rollback to savepoint deferred").await
    }
}

#[async_trait(?Send)]
impl<W: Clone + Hash + Send + 'static> Environment for Sandbox<W> {
    type Tx = StepTx;
    type Saved = SandboxMoment<W>;
    type Rule = SandboxRule<W>;

    async fn save(&mut self) -> SandboxMoment<W> {
        self.savepoints += 1;
        let savepoint = self.savepoints;
        self.run(&format!("savepoint moment_{savepoint}")).await.expect(GONE);
        SandboxMoment { savepoint, world: self.world.with(|world| world.clone()) }
    }

    async fn restore(&mut self, saved: &SandboxMoment<W>) {
        self.run(&format!("rollback to savepoint moment_{}", saved.savepoint)).await.expect(GONE);
        self.savepoints = saved.savepoint;
        self.world.with(|world| world.clone_from(&saved.world));
    }

    async fn begin(&mut self) -> StepTx {
        self.run("savepoint step").await.expect(GONE);
        let tx = self.tx.take().expect("one transaction of a step is open at a time");
        StepTx::lent(tx, self.pool.clone())
    }

    async fn end(&mut self, tx: StepTx, commit: bool) -> Result<(), StoreError> {
        self.tx = Some(tx.give_back());
        let checked = if commit { self.check_deferred().await } else { Ok(()) };
        match checked {
            Ok(()) if commit => self.run("release savepoint step").await.expect(GONE),
            Ok(()) => self.run("rollback to savepoint step; release savepoint step").await.expect(GONE),
            Err(error) => {
                self.run("rollback to savepoint step; release savepoint step").await.expect(GONE);
                return Err(StoreError::CommitFailed(Box::new(error)));
            }
        }
        Ok(())
    }

    async fn holds(&mut self, rule: &SandboxRule<W>, _facts: Facts<'_>) -> Result<bool, String> {
        match rule {
            SandboxRule::World(look) => Ok(self.world.with(|world| look(world))),
            SandboxRule::Sql(query) => {
                self.run("savepoint rule").await.expect(GONE);
                let query = sqlx::query_scalar(AssertSqlSafe(query.clone()));
                let answer = query.fetch_one(&mut **self.tx()).await;
                self.run("rollback to savepoint rule; release savepoint rule").await.expect(GONE);
                answer.map_err(|error| format!("the query of the rule failed: {error}"))
            }
        }
    }

    async fn hash(&mut self, mut hasher: &mut dyn Hasher) -> bool {
        let Some(query) = self.content.clone() else { return false };
        let content: Result<Vec<Option<String>>, _> =
            sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut **self.tx()).await;
        content.expect("the tables of the sandbox can be read").hash(&mut hasher);
        self.world.with(|world| world.hash(&mut hasher));
        true
    }
}

impl<W> fmt::Debug for Sandbox<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("savepoints", &self.savepoints).finish_non_exhaustive()
    }
}

impl<W> fmt::Debug for SandboxRule<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql(query) => f.debug_tuple("Sql").field(query).finish(),
            Self::World(_) => f.debug_tuple("World").finish(),
        }
    }
}
