//! What a run makes on the servers, and removes: three databases, an exchange and queues, all named after the run.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::try_join_all;
use shop::service::Failure;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool};
use tokio::time::timeout;
use url::Url;

/// What all names of the demo begin with.
const PREFIX: &str = "amends_demo_";
/// A database that `--keep` left has this comment, and is nobody's to remove.
const KEPT: &str = "kept by amends demo --keep";
/// The services, with a database each.
const SERVICES: [&str; 3] = ["orders", "payments", "warehouse"];
const BROKER_PATIENCE: Duration = Duration::from_secs(10);

/// The databases and names of one run.
#[derive(Debug)]
pub(crate) struct World {
    /// The name of the run, of its exchange, and the beginning of all others.
    pub(crate) name: String,
    /// The demo's own view of the database of `orders`.
    pub(crate) orders: PgPool,
    /// The same for `payments`.
    pub(crate) payments: PgPool,
    /// The same for `warehouse`.
    pub(crate) warehouse: PgPool,
    /// Where `RabbitMQ` is.
    pub(crate) amqp_url: String,
    server: Url,
    options: PgConnectOptions,
    /// Holds the lock that says that this run is alive.
    admin: tokio::sync::Mutex<PgConnection>,
    logs: PathBuf,
}

impl World {
    /// Removes what killed runs left, and makes what this one needs.
    ///
    /// # Errors
    /// When a server does not answer, or no database may be created on it.
    pub(crate) async fn create(database_url: &str, amqp_url: &str) -> Result<Self, Failure> {
        let server: Url = database_url.parse().map_err(|error| format!("DATABASE_URL is not a URL: {error}"))?;
        let options: PgConnectOptions =
            // The parser's own words may quote the password.
            database_url.parse().map_err(|_| "DATABASE_URL is not a PostgreSQL URL: postgres://user:password@host/name")?;
        let options = options.disable_statement_logging();
        let mut admin = options
            .connect()
            .await
            .map_err(|error| format!("cannot reach the PostgreSQL that DATABASE_URL names: {error}"))?;
        // A broker that is not there shows now, not after the databases were made.
        let broker = connect_broker(amqp_url).await?;
        for stale in stale_runs(&mut admin).await? {
            eprintln!("removing what the killed run {stale} left");
            drop_databases(&options, &stale, "").await?;
            delete_queues(&broker, &stale).await;
        }
        broker.close(200, "done".into()).await?;

        let name = format!("{PREFIX}{:08x}", fastrand::u32(..));
        lock(&mut admin, &name).await?;
        if let Err(error) = create_databases(&mut admin, &name).await {
            drop_databases(&options, &name, "").await?;
            return Err(format!("cannot create the demo's databases: {error}").into());
        }
        let logs = logs_of(&name)?;
        let [orders, payments, warehouse] = SERVICES.map(|service| {
            let url = url_of(&server, &name, service);
            let options = PgPoolOptions::new().max_connections(3);
            options.connect_lazy(url.as_str())
        });
        Ok(Self {
            orders: orders?,
            payments: payments?,
            warehouse: warehouse?,
            amqp_url: amqp_url.to_owned(),
            server,
            options,
            admin: tokio::sync::Mutex::new(admin),
            logs,
            name,
        })
    }

    /// The URL of a service's database.
    pub(crate) fn url(&self, service: &str) -> String {
        url_of(&self.server, &self.name, service).into()
    }

    /// The queue of the warehouse.
    pub(crate) fn queue(&self) -> String {
        queue_of(&self.name)
    }

    /// Where the processes write their logs.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Removes everything but the logs.
    pub(crate) async fn remove(self) -> Result<(), Failure> {
        self.close().await;
        let queues = self.delete_queues().await;
        // Also when the broker is gone: it must not leave the databases behind too.
        drop_databases(&self.options, &self.name, " with (force)").await?;
        queues
    }

    /// Leaves the databases, and says how to look at them and how to remove them, without a password in it.
    pub(crate) async fn keep(self) -> Result<(), Failure> {
        self.close().await;
        self.delete_queues().await?;
        let mut admin = self.admin.lock().await;
        println!("\nThe logs are in {}. The databases are kept; look at them with:", self.logs.display());
        println!("  eval \"$(cargo xtask services up)\"");
        for service in SERVICES {
            let comment = format!("comment on database {}_{service} is '{KEPT}'", self.name);
            sqlx::raw_sql(AssertSqlSafe(comment)).execute(&mut *admin).await?;
            println!("  psql \"${{DATABASE_URL%/*}}/{}_{service}\"", self.name);
        }
        println!("The sagas are in amends.saga and amends.journal of the first. Remove the databases with:");
        let drops = SERVICES.map(|service| format!("-c 'drop database {}_{service}'", self.name));
        println!("  psql \"$DATABASE_URL\" {}", drops.join(" "));
        Ok(())
    }

    async fn delete_queues(&self) -> Result<(), Failure> {
        let broker = connect_broker(&self.amqp_url).await?;
        delete_queues(&broker, &self.name).await;
        Ok(broker.close(200, "done".into()).await?)
    }

    async fn close(&self) {
        futures_util::join!(self.orders.close(), self.payments.close(), self.warehouse.close());
    }
}

fn queue_of(run: &str) -> String {
    format!("{run}.warehouse")
}

fn url_of(server: &Url, run: &str, service: &str) -> Url {
    let mut url = server.clone();
    url.set_path(&format!("{run}_{service}"));
    url
}

/// `target/demo-logs/<run>`, beside the folder of this program.
fn logs_of(run: &str) -> Result<PathBuf, Failure> {
    let program = env::current_exe()?;
    let target = program.ancestors().nth(2).ok_or("this program is in no target folder")?;
    let logs = target.join("demo-logs").join(run);
    fs::create_dir_all(&logs).map_err(|error| format!("cannot make {}: {error}", logs.display()))?;
    Ok(logs)
}

/// A run holds its lock for as long as it lives, and the server releases it when the run dies, however it does.
async fn lock(admin: &mut PgConnection, run: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended($1, 0))").bind(run).fetch_one(admin).await
}

/// Runs whose databases are there, that nobody kept, and that are not alive.
async fn stale_runs(admin: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    let runs: Vec<String> = sqlx::query_scalar(
        "select distinct substring(datname from '^' || $1 || '[0-9a-f]{8}') from pg_database
         where datname ~ ('^' || $1 || '[0-9a-f]{8}_')
           and coalesce(shobj_description(oid, 'pg_database'), '') <> $2",
    )
    .bind(PREFIX)
    .bind(KEPT)
    .fetch_all(&mut *admin)
    .await?;
    let mut stale = Vec::new();
    for run in runs {
        if lock(&mut *admin, &run).await? {
            stale.push(run);
        }
    }
    Ok(stale)
}

async fn create_databases(admin: &mut PgConnection, run: &str) -> sqlx::Result<()> {
    for service in SERVICES {
        // Template 0, since a session in template 1 would be in the way.
        let create = format!("create database {run}_{service} template template0");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *admin).await?;
    }
    Ok(())
}

/// All at once, since each waits for a checkpoint.
async fn drop_databases(server: &PgConnectOptions, run: &str, options: &str) -> sqlx::Result<()> {
    let drops = SERVICES.map(|service| async move {
        let mut session = server.connect().await?;
        let drop = format!("drop database if exists {run}_{service}{options}");
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut session).await
    });
    try_join_all(drops).await.map(|_| ())
}

async fn connect_broker(url: &str) -> Result<lapin::Connection, Failure> {
    let connect = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
    let failed = |error: &str| format!("cannot reach the RabbitMQ that AMQP_URL names: {error}");
    match timeout(BROKER_PATIENCE, connect).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(failed(&error.to_string()).into()),
        Err(_) => Err(failed("no answer").into()),
    }
}

/// Deletes what a run declared; a name that is not there is deleted already.
async fn delete_queues(broker: &lapin::Connection, run: &str) {
    let queue = queue_of(run);
    let queues = [queue.clone(), format!("{queue}.dead")];
    let exchanges = [run.to_owned(), format!("{run}.dead")];
    let deleted = async {
        let channel = broker.create_channel().await?;
        for queue in queues {
            channel.queue_delete(queue.into(), lapin::options::QueueDeleteOptions::default()).await?;
        }
        for exchange in exchanges {
            channel.exchange_delete(exchange.into(), lapin::options::ExchangeDeleteOptions::default()).await?;
        }
        channel.close(200, "done".into()).await?;
        Ok::<_, lapin::Error>(())
    };
    if let Err(error) = deleted.await {
        eprintln!("cannot delete the queues of {run}: {error}");
    }
}
