//! The hints of this process, by their databases: whoever writes on a connection of the application knows no more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sqlx::postgres::PgConnectOptions;

use super::{Hints, News, Shared};

static HINTS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// In which transaction of which database something was written, as the database says.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Written {
    pub(crate) database: String,
    pub(crate) xid: i64,
}

/// Hints of this will be given if the transaction commits, and if anybody in this process gives hints about its database.
pub(crate) fn written(at: &Written, news: News) {
    for hints in all(&hints()) {
        // Before it has connected it does not know what the server calls its database, and finds out whether it is this one.
        if hints.shared.state.database.get().is_none_or(|database| *database == at.database) {
            hints.written_in(Some(&at.database), at.xid, news);
        }
    }
}

pub(super) fn of(options: &PgConnectOptions) -> Hints {
    let mut known = hints();
    known.retain(|hints| hints.strong_count() > 0);
    let found = all(&known).find(|hints| is_same(&hints.shared.state.options(), options));
    found.unwrap_or_else(|| {
        let hints = Hints::new(options.clone());
        known.push(Arc::downgrade(&hints.shared));
        hints
    })
}

fn hints() -> MutexGuard<'static, Vec<Weak<Shared>>> {
    HINTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn all(known: &[Weak<Shared>]) -> impl Iterator<Item = Hints> {
    known.iter().filter_map(Weak::upgrade).map(|shared| Hints { shared })
}

fn is_same(one: &PgConnectOptions, other: &PgConnectOptions) -> bool {
    let place = |it: &PgConnectOptions| {
        (it.get_host().to_owned(), it.get_port(), it.get_socket().cloned(), it.get_database().map(str::to_owned))
    };
    place(one) == place(other) && one.get_username() == other.get_username()
}
