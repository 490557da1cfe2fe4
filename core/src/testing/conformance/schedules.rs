//! Sagas that start by themselves: at their time, once.

use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::future::join_all;

use super::Backend;
use super::stage::{SHOP, Stage, keyed, refusing, saga};
use crate::StoreError;
use crate::store::WorkerStore;

const FIVE: Duration = Duration::from_mins(5);

impl<B: Backend> Stage<B> {
    async fn schedule(&self, name: &str, timetable: &str, next: DateTime<Utc>) {
        self.store.schedule(name, timetable, next).await.expect("a start can be scheduled");
    }

    async fn overdue(&self, names: &[&str]) -> Vec<(String, DateTime<Utc>)> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let (mut overdue, now) = self.store.overdue(&names).await.expect("the store knows what is overdue");
        assert!(overdue.iter().all(|(_, at)| *at <= now));
        overdue.sort();
        overdue
    }

    /// Some minutes ago, by the store's clock, in the precision that every database has.
    async fn ago(&self, minutes: u64) -> DateTime<Utc> {
        let (_, now) = self.store.overdue(&[]).await.expect("the store knows the time");
        (now - Duration::from_mins(minutes)).trunc_subsecs(3)
    }
}

pub(crate) async fn a_schedule_is_overdue_from_its_time_on<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (past, earlier) = (stage.ago(5).await, stage.ago(9).await);
    stage.schedule(SHOP, "every 5m", past).await;
    stage.schedule("bank", "every 5m", past + Duration::from_hours(1)).await;
    stage.schedule("post", "every 5m", earlier).await;

    assert_eq!(stage.overdue(&[SHOP, "bank", "none"]).await, [(SHOP.to_owned(), past)], "of those that are asked for");
    assert!(stage.overdue(&[]).await.is_empty());
    stage.schedule(SHOP, "every 5m", past + FIVE).await;
    assert_eq!(stage.overdue(&[SHOP]).await, [(SHOP.to_owned(), past)], "one that comes later does not put it off");
    stage.schedule(SHOP, "every 5m", earlier).await;
    assert_eq!(stage.overdue(&[SHOP]).await, [(SHOP.to_owned(), earlier)]);
    stage.schedule(SHOP, "cron 0 * * * *", past).await;
    let both = [("post".to_owned(), earlier), (SHOP.to_owned(), past)];
    assert_eq!(stage.overdue(&["post", SHOP]).await, both, "another timetable replaces it");
}

pub(crate) async fn of_many_workers_one_starts_what_is_due<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (at, next) = (stage.ago(7).await, stage.ago(2).await);
    stage.schedule(SHOP, "every 5m", at).await;
    let processes: Vec<_> = (0..3).map(|_| stage.backend.connect()).collect();
    let start = async |at, next| {
        let sagas: Vec<_> = (0..6).map(|_| saga(SHOP)).collect();
        let starts = sagas.iter().zip(processes.iter().cycle());
        let starts = join_all(starts.map(|(saga, store)| store.start_scheduled(saga.clone(), at, next))).await;
        let started: Vec<_> = starts.into_iter().map(|answer| answer.expect("a start can be scheduled")).collect();
        for (saga, started) in sagas.iter().zip(&started) {
            assert_eq!(stage.find(saga.id).await.is_some(), *started);
        }
        started.into_iter().filter(|started| *started).count()
    };

    assert_eq!(start(next, None).await, 0, "that is not its time");
    assert_eq!(start(at, Some(next)).await, 1);
    assert_eq!(stage.overdue(&[SHOP]).await, [(SHOP.to_owned(), next)]);
    assert_eq!(start(at, Some(next)).await, 0, "it was");
    assert_eq!(start(next, None).await, 1);
    assert!(stage.overdue(&[SHOP]).await.is_empty(), "never again");
    let unknown = stage.store.start_scheduled(saga("bank"), at, None).await;
    assert!(!unknown.expect("the store answers"), "one without a schedule");
    stage.schedule(SHOP, "every 5m", next).await;
    assert_eq!(stage.overdue(&[SHOP]).await, [(SHOP.to_owned(), next)], "until it is scheduled anew");
}

pub(crate) async fn a_scheduled_start_that_fails_is_still_due<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let at = stage.ago(5).await;
    stage.schedule(SHOP, "every 5m", at).await;
    stage.start(refusing(SHOP, "x")).await;
    stage.start(keyed("o-1", "1")).await;

    for wanted in [refusing(SHOP, "x"), keyed("o-1", "2")] {
        let answer = stage.store.start_scheduled(wanted.clone(), at, Some(at + FIVE)).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
        assert!(stage.find(wanted.id).await.is_none());
        assert_eq!(stage.overdue(&[SHOP]).await, [(SHOP.to_owned(), at)]);
    }
}
