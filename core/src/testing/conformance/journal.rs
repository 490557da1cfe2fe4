//! The journal is the fence: whoever writes a sequence number first has the saga, and everybody else writes nothing.

use futures_util::future::{join, join_all};

use super::Backend;
use super::stage::{SHOP, Stage, completed, is_done, json, message, record, saga, succeeded};
use crate::event::{Event, Rejection};
use crate::store::{Append, Appended, Store};
use crate::{Json, SagaId, WorkerId};

pub(crate) async fn an_append_reads_back_as_it_was_written<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (saga, other) = (stage.owned().await, stage.owned().await);
    let first = vec![succeeded("a", json(r#"{"b": [1, 2.50, "x"]}"#)), succeeded("b", Json::null())];
    let rejection = Rejection { message: "no".into(), ..Rejection::new("declined") };
    let second = vec![Event::Rejected { step: "c".into(), attempt: 2, rejection }, Event::DeadlinePassed];

    let mut answers = Vec::new();
    for (seq, events) in [(1, &first), (2, &second), (3, &Vec::new())] {
        stage.write(record(other, seq)).await;
        answers.push(stage.append(Append { events: events.clone(), ..record(saga, seq) }).await);
    }

    let journal = stage.load(saga).await.journal;
    assert_eq!(journal.iter().map(|row| (row.saga, row.seq)).collect::<Vec<_>>(), [(saga, 1), (saga, 2), (saga, 3)]);
    assert_eq!(journal.iter().map(|row| &row.events).collect::<Vec<_>>(), [&first, &second, &Vec::new()]);
    assert_eq!(
        journal.iter().map(|row| Appended::Done(row.at)).collect::<Vec<_>>(),
        answers,
        "at the times that were told"
    );
    assert!(journal.is_sorted_by_key(|row| row.at));
}

pub(crate) async fn an_append_at_a_seq_that_is_taken_changes_nothing_at_all<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (contested, asleep, child) = (stage.owned().await, stage.owned().await, saga(SHOP));
    stage.write(record(contested, 1)).await;
    let before = stage.everything(&[contested, asleep, child.id]).await;

    let late = Append {
        head: Some(completed()),
        outbox: vec![message("of.the.stale")],
        starts: vec![child.clone()],
        wakes: Some(asleep),
        ..record(contested, 1)
    };
    // Together with appends of others, which it does not disturb.
    let sagas: Vec<SagaId> = join_all((0..20).map(|_| stage.owned())).await;
    let others = join_all(sagas.iter().map(|saga| stage.append(record(*saga, 1))));
    let (answer, others) = join(stage.append(late.clone()), others).await;

    assert_eq!(answer, Appended::Conflict);
    assert!(others.into_iter().all(is_done));
    assert_eq!(stage.commit(late).await, Appended::Conflict, "nor does a step that was overtaken");
    assert_eq!(stage.everything(&[contested, asleep, child.id]).await, before);
    let owner = stage.load(asleep).await.owner.expect("it has an owner");
    assert!(!stage.is_nudged(asleep, owner).await, "nobody was woken");
}

pub(crate) async fn a_gap_is_a_conflict_and_changes_nothing<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (fresh, old) = (stage.owned().await, stage.owned().await);
    stage.write(record(old, 1)).await;
    let before = stage.everything(&[fresh, old]).await;

    for (saga, seq) in [(fresh, 2), (fresh, 17), (old, 3), (old, 4), (fresh, 0), (old, 0), (old, -1)] {
        let ahead = Append { head: Some(completed()), outbox: vec![message("too.early")], ..record(saga, seq) };
        assert_eq!(stage.append(ahead.clone()).await, Appended::Conflict, "at {seq}");
        assert_eq!(stage.commit(ahead).await, Appended::Conflict, "at {seq}, in a step");
    }

    assert_eq!(stage.everything(&[fresh, old]).await, before);
    stage.write(record(old, 2)).await;
}

pub(crate) async fn an_append_to_a_saga_that_is_not_there_is_a_conflict<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (absent, child) = (SagaId::new(), saga(SHOP));
    let append = Append { outbox: vec![message("of.nobody")], starts: vec![child.clone()], ..record(absent, 1) };

    assert_eq!(stage.append(append.clone()).await, Appended::Conflict);
    assert_eq!(stage.commit(append).await, Appended::Conflict, "nor in a step");

    assert!(stage.find(absent).await.is_none() && stage.find(child.id).await.is_none());
    assert!(stage.backend.published().await.is_empty());
}

pub(crate) async fn an_append_repeated_is_answered_as_the_first_time<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let (saga, writer) = (stage.owned().await, WorkerId::new());
    let append = |nonce, writer| Append { outbox: vec![message("once")], writer, nonce, ..record(saga, 1) };
    let first = stage.append(append(7, writer)).await;

    assert!(is_done(first));
    assert_eq!(stage.append(append(7, writer)).await, first, "the same row, and so the same time");
    stage.write(record(saga, 2)).await;
    assert_eq!(stage.append(append(7, writer)).await, first, "also when the saga has gone on");
    assert_eq!(stage.append(append(8, writer)).await, Appended::Conflict, "another append of the same writer");
    assert_eq!(stage.append(append(7, WorkerId::new())).await, Appended::Conflict, "another writer");
    assert_eq!(stage.backend.published().await.len(), 1);
    assert_eq!(stage.load(saga).await.journal.len(), 2);
}

pub(crate) async fn of_appends_at_the_same_seq_at_once_exactly_one_wins<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let saga = stage.owned().await;
    for seq in 1..=6 {
        let append = || Append { outbox: vec![message("one.of.many")], ..record(saga, seq) };
        // Many from one process, since a store may write what gathers there in one go.
        let processes: Vec<_> = (0..3).map(|_| stage.backend.connect()).collect();
        let appends = join_all(processes.iter().flat_map(|store| (0..20).map(|_| store.append(append()))));
        // Steps win, where there are any.
        let commits = join_all((0..seq % 2 * 3).map(|_| stage.commit(append())));

        let (appended, committed) = join(appends, commits).await;

        let appended = appended.into_iter().map(|answer| answer.expect("the store answers"));
        assert_eq!(appended.chain(committed).filter(|answer| is_done(*answer)).count(), 1);
        assert_eq!(stage.load(saga).await.journal.len() as i64, seq);
        assert_eq!(stage.backend.published().await.len() as i64, seq, "and the losers published nothing");
    }
}
