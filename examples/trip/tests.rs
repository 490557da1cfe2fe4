//! What the example promises: one run of each trip, and every run of one.

use super::*;

#[allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
#[tokio::test]
async fn only_the_trip_without_a_hotel_is_given_back() {
    expect_test::expect![[r#"
        saga book-trip v1
          call flight, undone by call cancel_flight
          call hotel, undone by call cancel_hotel
          call car, skippable, undone by call cancel_car
          call pay after flight, hotel, car, pivot"#]]
    .assert_eq(&BookTrip::DEFINITION.to_string());
    let sagas = Sagas::builder(MemoryStore::new()).register(BookTrip::default()).build().expect("it is sound");
    let worker = tokio::spawn({
        let sagas = sagas.clone();
        async move { sagas.run(CancellationToken::new()).await }
    });
    let all = book(&sagas).await.expect("the store is there");
    assert!(
        matches!(&all[..], [Ended::Completed(_), Ended::Completed(paid), Ended::Compensated(_)] if paid.contains("on foot"))
    );
    worker.abort();
}

/// With a zombie too there are 86 071 573 338 schedules, which take a minute; they hold as well.
#[test]
fn whatever_goes_wrong_a_trip_is_booked_whole_or_not_at_all() {
    let booked = |bookings: &Bookings| bookings.values().filter(|stands| **stands).count();
    let report = amends::testing::explore(Bookings::new())
        .saga(|it| BookTrip { agency: Agency { bookings: it.shared() } }, &Trip { to: "Oslo".into(), cents: 1 })
        .crashes(2)
        .transient(1)
        .when_completed("all three are booked", move |it| booked(it.world) == 3)
        .when_compensated("nothing is booked", move |it| booked(it.world) == 0)
        .check();
    assert!(report.is_exhaustive());
}
