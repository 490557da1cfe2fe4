//! What the example promises.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_order_is_shipped_or_cancelled_and_paid_back() {
    let url = |name: &str| std::env::var(name).expect("servers: eval \"$(cargo xtask services up)\"");
    let world = World::create(&url("DATABASE_URL"), &url("AMQP_URL")).await.expect("the servers answer");

    let outcome = world.run(42).await;

    world.remove().await.expect("the servers answer");
    let outcome = outcome.expect("all orders come to an end");
    assert!(outcome.broken.is_empty(), "{outcome}");
    // 6 cannot be paid and 7 cannot be delivered; of the 10 lamps that could be, some of the first 5 may have been reserved for Atlantis.
    assert_eq!(outcome.shipped + outcome.cancelled, 42);
    assert!((19 + 3..=19 + 5).contains(&outcome.shipped), "{outcome}");
}

#[test]
fn whatever_a_service_hears_another_one_says() {
    let all = [describe::<Orders>(), describe::<Payments>(), describe::<Inventory>(), describe::<Shipping>()];
    let all = all.map(|document| document.to_json());
    let operations = |action: &str| {
        let keys = all.iter().flat_map(|document| document["operations"].as_object().into_iter().flatten());
        let names = keys.filter_map(|(key, _)| key.strip_prefix(&format!("{action}.")));
        names.map(ToOwned::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(operations("send").len(), 9);
    assert_eq!(operations("send"), operations("receive"));
    let hears = [Orders::HEARS, Payments::HEARS, Inventory::HEARS, Shipping::HEARS].concat();
    assert_eq!(operations("receive"), hears.into_iter().map(ToOwned::to_owned).collect());
}
