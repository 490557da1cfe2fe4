//! What the example promises: both ways, and every run of one.

use super::*;

#[allow(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
#[tokio::test]
async fn without_a_room_at_the_airport_it_goes_back_to_the_savepoint_and_takes_the_train() {
    expect_test::expect![[r#"
        saga attend-conference v1
          call register, savepoint, undone by call deregister
          call flight after register, undone by call cancel_flight
          call airport_hotel after flight, undone by call leave_airport_hotel, else station_hotel
          call train after register, undone by call cancel_train
          call station_hotel after train, undone by call leave_station_hotel
          call pay after airport_hotel, pivot"#]]
    .assert_eq(&Attend::DEFINITION.to_string());
    let sagas = Sagas::builder(MemoryStore::new()).register(Attend::default()).build().expect("it is sound");
    let worker = tokio::spawn({
        let sagas = sagas.clone();
        async move { sagas.run(CancellationToken::new()).await }
    });
    let all = travel(&sagas).await.expect("the store is there");
    let paid = |hotel: &str| Ended::Completed(format!("pay for the {hotel}"));
    assert_eq!(all, [paid("Airport Inn"), paid("Station Hotel")]);
    worker.abort();
}

#[test]
fn whatever_goes_wrong_one_way_is_planned_whole_or_nothing_is() {
    let planned = |plans: &Plans| plans.values().filter(|stands| **stands).count();
    let visit = Visit { conference: "SIGMOD 1987".into(), airport_hotel_is_full: false };
    let report = amends::testing::explore(Plans::new())
        .saga(|it| Attend { plans: it.shared() }, &visit)
        .crashes(2)
        .transient(1)
        .zombies(1)
        .when_completed("the fee, a way, a room and the bill", move |it| planned(it.world) == 4)
        .when_compensated("nothing is planned", move |it| planned(it.world) == 0)
        .check();
    assert!(report.is_exhaustive());
}
