//! What users put into a saga comes out as it went in; and what cannot be stored harms nobody else.

use futures_util::future::join_all;

use super::Backend;
use super::stage::{SHOP, Stage, json, keyed, message, record, saga, succeeded};
use crate::event::{Event, Rejection};
use crate::store::{Append, Appended, NewSaga, Store};
use crate::{Json, MAX_JSON_BYTES, MAX_JSON_DEPTH, StoreError};

const TEXTS: [&str; 9] = [
    "",
    "😀 🏴󠁧󠁢󠁳󠁣󠁴󠁿 é ß 漢字 \u{202e}",
    "'; drop table saga; --",
    r#""double" 'single' \back\ $$dollar$$ {braces},{null}"#,
    "line\nfeed\r\ttab \u{1} \u{7f} \u{2028}",
    "%s %d \\u0000 \\x00 \\N",
    "NULL",
    "\u{feff}\u{fffd}\u{10ffff}",
    "   ",
];

pub(crate) async fn every_text_reads_back_as_it_was_written<B: Backend>() {
    let stage = Stage::<B>::open().await;
    for text in TEXTS {
        let input = Json::encode(&[text]).expect("it can be stored");
        let wanted = NewSaga { key: Some(text.into()), trace: Some(text.into()), input: input.clone(), ..saga(SHOP) };
        let id = stage.start(wanted.clone()).await;
        let rejection = Rejection { message: text.into(), details: Some(input.clone()), ..Rejection::new(text) };
        let events = vec![
            succeeded(text, input.clone()),
            Event::Rejected { step: text.into(), attempt: 1, rejection },
            Event::SignalRefused { step: text.into(), error: text.into() },
        ];
        let outbox = vec![crate::OutboxMessage {
            key: Some(text.into()),
            headers: [(text.to_owned(), text.to_owned())].into(),
            payload: text.into(),
            ..message(text)
        }];
        let append = Append { events, outbox, ..record(id, 1) };
        stage.write(append.clone()).await;

        let loaded = stage.load(id).await;

        assert_eq!((&loaded.input, &loaded.trace), (&wanted.input, &wanted.trace));
        assert_eq!(loaded.journal[0].events, append.events);
        assert_eq!(stage.backend.published().await.last(), append.outbox.last());
        let again = stage.store.start(NewSaga { id: crate::SagaId::new(), ..wanted }, None).await;
        assert_eq!(again.unwrap_or_else(|error| panic!("{text:?}: {error}")).id(), id);
    }
    let spaced = r#" {"b" : 1.50,  "a":[ ], "a" : -0e5, "big": 123456789012345678901234567890.5 } "#;
    let id = stage.start(NewSaga { input: json(spaced), ..saga(SHOP) }).await;
    stage.write(Append { events: vec![succeeded("a", json(spaced))], ..record(id, 1) }).await;
    let loaded = stage.load(id).await;
    assert_eq!(loaded.input.as_str().trim(), spaced.trim(), "numbers, order and white space too");
    assert_eq!(loaded.journal[0].events, [succeeded("a", loaded.input)]);
}

pub(crate) async fn json_at_the_limits_reads_back<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let deep = "[".repeat(MAX_JSON_DEPTH) + &"]".repeat(MAX_JSON_DEPTH);
    let large = format!("\"{}\"", "é".repeat((MAX_JSON_BYTES - 2) / 2));
    let wide = format!("[{}0]", "0,".repeat((MAX_JSON_BYTES - 3) / 2));
    for text in [deep, large, wide] {
        let value = json(&text);
        let id = stage.start(NewSaga { input: value.clone(), ..keyed(&text[..9], "0") }).await;
        let child = NewSaga { input: value.clone(), ..saga(SHOP) };
        let outbox = vec![crate::OutboxMessage { payload: text.clone().into_bytes(), ..message("large") }];
        let events = vec![succeeded("a", value.clone()), succeeded("b", value.clone())];
        stage.write(Append { events: events.clone(), outbox, starts: vec![child.clone()], ..record(id, 1) }).await;

        let loaded = stage.load(id).await;

        assert!(loaded.input == value && loaded.journal[0].events == events, "{}…", &text[..9]);
        assert!(stage.load(child.id).await.input == value);
        assert!(stage.backend.published().await.last().is_some_and(|sent| sent.payload == text.as_bytes()));
        let again = stage.store.start(NewSaga { input: value, ..keyed(&text[..9], "0") }, None).await;
        assert_eq!(again.unwrap_or_else(|error| panic!("{error}")).id(), id);
    }
}

pub(crate) async fn an_append_that_cannot_be_stored_fails_alone<B: Backend>() {
    let stage = Stage::<B>::open().await;
    let sagas = join_all((0..40).map(|_| stage.owned())).await;
    let is_bad = |number: usize| [3, 4, 17, 39].contains(&number);
    let appends = sagas.iter().enumerate().map(|(number, id)| {
        // Who has a business key may have to wait, so no append can start it.
        let starts = if is_bad(number) { vec![keyed("o-1", "1")] } else { vec![saga(SHOP)] };
        stage.store.append(Append { starts, outbox: vec![message("sent")], ..record(*id, 1) })
    });

    let answers = join_all(appends).await;

    for (number, answer) in answers.into_iter().enumerate() {
        match answer {
            Err(StoreError::Refused(_)) => assert!(is_bad(number), "{number}"),
            answer => assert!(!is_bad(number) && matches!(answer, Ok(Appended::Done(_))), "{number}: {answer:?}"),
        }
        assert_eq!(stage.load(sagas[number]).await.journal.is_empty(), is_bad(number));
    }
    assert_eq!(stage.backend.published().await.len(), 36);
}
