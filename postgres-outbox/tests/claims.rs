//! Claims on real PostgreSQL: what others do at the same moment.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use amends::store::{Claim, NewSaga, WorkerStore};
use amends::{Definition, Json, Step, StepKind, Store, WorkerId};
use amends_postgres::PgStore;
use amends_postgres::testing::TestDatabase;
use futures_util::future::join_all;

const MOST: u32 = 3;

fn definition(name: String) -> Definition {
    let steps = vec![Step::new("a".into(), StepKind::Call)].into();
    Definition { concurrency: Some(MOST), ..Definition::new(name.into(), 1, steps) }
}

fn claim(definition: &Definition) -> Claim {
    Claim {
        worker: WorkerId::new(),
        registered: vec![(definition.name.to_string(), 1)],
        limit: 10,
        forward_limit: 10,
        bounds: vec![(definition.name.to_string(), MOST)],
        hints: Vec::new(),
        sweep: false,
        driven: Vec::new(),
    }
}

#[tokio::test]
async fn claims_at_the_same_moment_together_take_no_more_than_the_bound() {
    let database = TestDatabase::create().await;
    let stores: Vec<_> = (0..6).map(|_| PgStore::new(database.pool().clone())).collect();
    for round in 0..30 {
        let definition = definition(format!("narrow {round}"));
        stores[0].define(&[&definition]).await.unwrap();
        for _ in 0..20 {
            stores[0].start(NewSaga::new(&definition, Json::null()), None).await.unwrap();
        }

        let claims = stores.iter().flat_map(|store| [store.claim(claim(&definition)), store.claim(claim(&definition))]);
        let taken: usize = join_all(claims).await.into_iter().map(|taken| taken.unwrap().len()).sum();

        assert!(taken <= MOST as usize, "{taken} in round {round}");
        let rest = stores[0].claim(claim(&definition)).await.unwrap().len();
        assert_eq!(taken + rest, MOST as usize, "what the others left is taken, and no more");
    }
}

#[tokio::test]
async fn a_claim_does_not_wait_for_a_saga_that_somebody_else_has_locked() {
    let database = TestDatabase::create().await;
    let store = PgStore::new(database.pool().clone());
    let definition = Definition { concurrency: None, ..definition("wide".to_owned()) };
    for _ in 0..3 {
        store.start(NewSaga::new(&definition, Json::null()), None).await.unwrap();
    }
    let mut open = database.pool().begin().await.unwrap();
    sqlx::query("select from amends.saga order by id limit 1 for update").execute(&mut *open).await.unwrap();

    let wanted = Claim { bounds: Vec::new(), ..claim(&definition) };
    let claimed = tokio::time::timeout(Duration::from_secs(10), store.claim(wanted)).await;

    assert_eq!(claimed.expect("it takes the others at once").unwrap().len(), 2);
}
