//! The inbox: a message takes effect once, because its row is written in the handler's own transaction.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

/// Remembers which messages a consumer has handled.
///
/// A row is kept as long as [`Retention::inbox`](crate::Retention::inbox) says; a copy that comes later is not recognised.
#[derive(Debug, Clone, Copy)]
pub struct Inbox;

/// A message that was received.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Its id. Those of other producers need not be UUIDs.
    pub id: &'a str,
    /// Its type.
    pub name: &'a str,
    /// What it says.
    pub payload: &'a [u8],
}

/// What the inbox knows of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It was not handled before; its row is written.
    New,
    /// It was handled before, or is a copy of one further ahead.
    Copy,
    /// Another message with its id was handled before: another type, or another payload.
    Another,
}

/// Ids of other producers are texts; they become UUIDs of their own kind.
const FOREIGN: Uuid = Uuid::from_u128(0x616d_656e_6473_4000_8000_696e_626f_7831);
const BODY: Uuid = Uuid::from_u128(0x616d_656e_6473_4000_8000_696e_626f_7832);

/// In the order of the ids, so that two batches that hold the same ones do not deadlock.
const INSERT: &str = "
    insert into amends.inbox (consumer, message_id, body)
    select $1, m.id, m.body from unnest($2::uuid[], $3::uuid[]) as m(id, body) order by m.id
    on conflict do nothing
    returning message_id";

/// A statement of its own, which sees the rows that the first one waited for.
const BODIES: &str =
    "select message_id, body from amends.inbox where consumer = $1 and message_id = any($2) and body is not null";

impl Inbox {
    /// Begins the transaction of a handler. A session that leaves it idle for longer than `idle`, such as that of a process that
    /// hangs or whose host is gone, is ended by the database: until then whoever gets a copy waits for it.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn begin(pool: &PgPool, idle: Duration) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        crate::hook::before("begin handler");
        // 0 would be no limit at all.
        let idle = i32::try_from(idle.as_millis()).unwrap_or(i32::MAX).max(1);
        let begin = format!(
            "begin; set local idle_in_transaction_session_timeout = {idle}; set local amends.handler = 'at work'"
        );
        pool.begin_with(AssertSqlSafe(begin)).await
    }

    /// Whether what [`begin`](Self::begin) has begun is still there to be committed: a handler may have ended it by itself, or
    /// gone on after a statement had failed. PostgreSQL rolls such a transaction back at its commit, and reports no error.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn is_intact(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
        const FAILED: &str = "25P02";
        crate::hook::before("ask handler");
        let asked = sqlx::query_scalar("select coalesce(current_setting('amends.handler', true) = 'at work', false)");
        match asked.fetch_one(conn).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(FAILED) => Ok(false),
            answer => answer,
        }
    }

    /// Writes the rows of messages, and says of each whether it was handled before.
    ///
    /// A copy that arrives while another is being handled waits for that one's commit. Where all are new it takes one
    /// statement.
    ///
    /// # Errors
    /// Returns the database's error.
    pub async fn insert(
        conn: &mut PgConnection,
        consumer: &str,
        messages: &[Received<'_>],
    ) -> Result<Vec<Inserted>, sqlx::Error> {
        // The first of each id; further ones in the same call are copies, or others.
        let mut bodies: HashMap<Uuid, Uuid> = HashMap::with_capacity(messages.len());
        let keyed: Vec<(Uuid, Uuid, bool)> = messages
            .iter()
            .map(|message| {
                let (id, body) = (message.key(), message.body());
                let is_first = !bodies.contains_key(&id);
                bodies.entry(id).or_insert(body);
                (id, body, is_first)
            })
            .collect();
        let (ids, hashes): (Vec<Uuid>, Vec<Uuid>) = bodies.iter().map(|(&id, &body)| (id, body)).unzip();
        crate::hook::before("inbox");
        let written: Vec<Uuid> =
            sqlx::query_scalar(INSERT).bind(consumer).bind(&ids).bind(&hashes).fetch_all(&mut *conn).await?;
        let written: HashSet<Uuid> = written.into_iter().collect();
        let known: Vec<Uuid> = ids.into_iter().filter(|id| !written.contains(id)).collect();
        if !known.is_empty() {
            crate::hook::before("inbox bodies");
            let kept: Vec<(Uuid, Uuid)> =
                sqlx::query_as(BODIES).bind(consumer).bind(&known).fetch_all(&mut *conn).await?;
            // Of a row that has just gone, or is from before there were hashes, nobody knows better than that it is a copy.
            let kept: HashMap<Uuid, Uuid> = kept.into_iter().collect();
            for id in known {
                match kept.get(&id) {
                    Some(&body) => bodies.insert(id, body),
                    None => bodies.remove(&id),
                };
            }
        }
        let verdict = |(id, body, is_first): (Uuid, Uuid, bool)| match bodies.get(&id) {
            Some(&first) if first != body => Inserted::Another,
            Some(_) if is_first && written.contains(&id) => Inserted::New,
            _ => Inserted::Copy,
        };
        Ok(keyed.into_iter().map(verdict).collect())
    }
}

impl Received<'_> {
    /// Only ids of version 7 begin with a time, and so belong to a week. All others have a partition of their own, at the end of time.
    fn key(&self) -> Uuid {
        let id: Option<Uuid> = self.id.parse().ok();
        let id = match id.map(|id| (id, id.get_version_num())) {
            Some((id, 7)) => return id,
            Some((id, 4)) => id,
            Some((id, _)) => Uuid::new_v5(&FOREIGN, id.hyphenated().to_string().as_bytes()),
            None => Uuid::new_v5(&FOREIGN, self.id.as_bytes()),
        };
        let mut bytes = id.into_bytes();
        bytes[..6].fill(0xff);
        Uuid::from_bytes(bytes)
    }

    /// SHA-1 is enough: nobody gains by two messages of one id that count as one.
    fn body(&self) -> Uuid {
        Uuid::new_v5(&Uuid::new_v5(&BODY, self.name.as_bytes()), self.payload)
    }
}
