//! The audit: every invariant of the shop, checked over all ledgers at once. Pure: it only compares what was read.

use std::collections::HashMap;

use shop::api::Order;
use uuid::Uuid;

use crate::customers::{CENTS, STOCK};
use crate::ledgers::{ChargeRow, Ledgers, OrderRow};

/// One invariant, and what breaks it.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) area: Area,
    /// What should be true.
    pub(crate) claim: &'static str,
    /// The ids of what breaks it, with a word on each.
    pub(crate) offenders: Vec<String>,
}

/// The row of the summary that a finding belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    Orders,
    Money,
    Stock,
    Events,
    Order,
    Recovery,
}

impl Finding {
    pub(crate) fn holds(&self) -> bool {
        self.offenders.is_empty()
    }
}

/// Checks every invariant.
pub(crate) fn audit(placed: &[Order], ledgers: &Ledgers) -> Vec<Finding> {
    let findings = [orders(placed, ledgers), money(ledgers), stock(ledgers), events(ledgers)];
    findings.into_iter().flatten().collect()
}

fn finding(area: Area, claim: &'static str, offenders: impl IntoIterator<Item = String>) -> Finding {
    let mut offenders: Vec<_> = offenders.into_iter().collect();
    offenders.sort();
    Finding { area, claim, offenders }
}

fn orders(placed: &[Order], ledgers: &Ledgers) -> Vec<Finding> {
    let sagas: HashMap<_, _> = ledgers.sagas.iter().map(|saga| (saga.key.clone(), saga)).collect();
    let saga_of = |order: &Uuid| sagas.get(&order.to_string()).map_or("none", |saga| saga.status.as_str());
    let lost = placed.iter().filter(|order| !ledgers.orders.contains_key(&order.id) || saga_of(&order.id) == "none");
    let open = ledgers.sagas.iter().filter(|saga| !matches!(saga.status.as_str(), "completed" | "compensated"));
    let torn_apart = ledgers.orders.values().filter(|order| {
        let expected = if order.status == "completed" { "completed" } else { "compensated" };
        !matches!(order.status.as_str(), "completed" | "refused") || saga_of(&order.id) != expected
    });
    let area = Area::Orders;
    vec![
        finding(area, "an order that was taken is there, and has a saga", lost.map(|order| order.id.to_string())),
        finding(area, "every saga has ended", open.map(|saga| format!("saga {}: {}", saga.id, saga.detail))),
        finding(
            area,
            "an order is completed or refused, as its saga ended",
            torn_apart.map(|order| format!("{}: {}, saga {}", order.id, order.status, saga_of(&order.id))),
        ),
        finding(
            area,
            "every journal counts 1, 2, 3 …, without gaps",
            ledgers.torn_journals.iter().map(|saga| format!("saga {saga}")),
        ),
    ]
}

fn money(ledgers: &Ledgers) -> Vec<Finding> {
    let mut charges: HashMap<Uuid, Vec<&ChargeRow>> = HashMap::new();
    let mut taken: HashMap<&str, i64> = HashMap::new();
    for charge in ledgers.charges.iter().filter(|charge| charge.status == "charged") {
        charges.entry(charge.reference.unwrap_or_default()).or_default().push(charge);
        *taken.entry(charge.account.as_deref().unwrap_or_default()).or_default() += charge.cents.unwrap_or_default();
    }
    let paid = |order: &OrderRow| -> Vec<(Option<&str>, Option<i64>)> {
        let charges = charges.get(&order.id).map_or(&[][..], Vec::as_slice);
        charges.iter().map(|charge| (charge.account.as_deref(), charge.cents)).collect()
    };
    let unpaid = ledgers
        .orders
        .values()
        .filter(|order| order.status == "completed" && paid(order) != [(Some(&*order.account), Some(order.cents))]);
    let kept = ledgers.orders.values().filter(|order| order.status == "refused" && !paid(order).is_empty());
    let unknown = charges.iter().filter(|(order, _)| !ledgers.orders.contains_key(order));
    let unbalanced = ledgers.accounts.iter().filter_map(|(account, &cents)| {
        let expected = CENTS - taken.get(account.as_str()).copied().unwrap_or_default();
        (cents != expected).then(|| format!("{account}: {cents} cents, should be {expected}"))
    });
    let area = Area::Money;
    vec![
        finding(
            area,
            "a completed order was charged once, to the cent",
            unpaid.map(|order| format!("{}: {} cents, charged {:?}", order.id, order.cents, paid(order))),
        ),
        finding(
            area,
            "a refused order cost nothing",
            kept.map(|order| format!("{}: still charged {:?}", order.id, paid(order))),
        ),
        finding(
            area,
            "every charge is for an order",
            unknown.flat_map(|(_, charges)| charges.iter().map(|charge| format!("charge {}", charge.key))),
        ),
        finding(area, "every account is what it was, less what was charged", unbalanced),
    ]
}

fn stock(ledgers: &Ledgers) -> Vec<Finding> {
    let completed = || ledgers.orders.values().filter(|order| order.status == "completed");
    let mut sold: HashMap<&str, i64> = HashMap::new();
    completed().for_each(|order| *sold.entry(&order.sku).or_default() += i64::from(order.qty));
    let unbalanced = ledgers.stock.iter().filter_map(|stock| {
        let expected = i64::from(STOCK) - sold.get(&*stock.sku).copied().unwrap_or_default();
        (i64::from(stock.available) != expected)
            .then(|| format!("{}: {} there, should be {expected}", stock.sku, stock.available))
    });
    let unheld = ledgers.orders.values().filter(|order| match order.status.as_str() {
        "completed" => order.reservation.as_deref() != Some("held") || !order.is_shipped,
        "refused" => order.reservation.as_deref() == Some("held") || order.is_shipped,
        _ => false,
    });
    let mut parcels: HashMap<Uuid, Vec<(&str, i32)>> = HashMap::new();
    ledgers
        .parcels
        .iter()
        .for_each(|parcel| parcels.entry(parcel.order_id).or_default().push((&parcel.sku, parcel.qty)));
    let missent = ledgers.orders.values().filter_map(|order| {
        let expected = if order.is_shipped { vec![(order.sku.as_str(), order.qty)] } else { Vec::new() };
        let sent = parcels.get(&order.id).cloned().unwrap_or_default();
        (sent != expected).then(|| format!("{}: sent {sent:?}, should be {expected:?}", order.id))
    });
    let unheard = ledgers.stock.iter().filter_map(|stock| {
        let there = ledgers.set_aside.get(&stock.sku).copied().unwrap_or_default();
        let expected = sold.get(&*stock.sku).copied().unwrap_or_default();
        (there != expected).then(|| format!("{}: {there} set aside, should be {expected}", stock.sku))
    });
    let area = Area::Stock;
    vec![
        finding(area, "the shelves are what they were, less what was sold", unbalanced),
        finding(
            area,
            "goods are held and shipped for completed orders alone",
            unheld.map(|order| {
                format!(
                    "{}: {}, reservation {:?}, shipped {}",
                    order.id, order.status, order.reservation, order.is_shipped
                )
            }),
        ),
        finding(area, "the warehouse sent every shipped order once", missent),
        finding(area, "the warehouse has set aside what was sold", unheard),
    ]
}

fn events(ledgers: &Ledgers) -> Vec<Finding> {
    let mut received: HashMap<Uuid, u32> = HashMap::new();
    ledgers.received.iter().for_each(|row| *received.entry(row.message_id).or_default() += 1);
    let undelivered = ledgers.outbox.values().filter(|row| !received.contains_key(&row.id));
    let repeated = received.iter().filter(|(_, times)| **times > 1);
    let invented = received.keys().filter(|id| !ledgers.outbox.contains_key(id));
    let versions = ledgers.stock.iter().map(|stock| (stock.sku.clone(), stock.version));
    let versions = versions.chain(ledgers.orders.values().map(|order| (order.id.to_string(), order.version)));
    let behind = versions.filter_map(|(key, version)| {
        let heard = ledgers.last_heard.get(&key).copied().unwrap_or_default();
        (heard != version).then(|| format!("{key}: heard up to {heard} of {version}"))
    });
    let area = Area::Events;
    vec![
        finding(
            area,
            "every committed event was delivered",
            undelivered.map(|row| format!("{} {}, key {:?}", row.id, row.name, row.key)),
        ),
        finding(area, "no event took effect twice", repeated.map(|(id, times)| format!("{id}: {times} times"))),
        finding(area, "no event came from nowhere", invented.map(Uuid::to_string)),
        finding(area, "no event is held back", ledgers.held.iter().map(Uuid::to_string)),
        finding(
            Area::Order,
            "the events of every key came in the order of their commits",
            ledgers.disorder.iter().map(|row| {
                format!("{}: key {}, version {} where {} was due", row.message_id, row.key, row.version, row.expected)
            }),
        ),
        finding(Area::Order, "the last event heard of every key is its last", behind),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledgers::{OutboxRow, ParcelRow, ReceivedRow, SagaRow, StockRow};

    /// One completed order, whose ledgers all agree.
    fn shop() -> (Vec<Order>, Ledgers) {
        let id = Uuid::from_u128(1);
        let order = Order { id, account: "a".into(), sku: "mug".into(), qty: 2, cents: 1_001, card: "tok_1".into() };
        let message = Uuid::from_u128(2);
        let ledgers = Ledgers {
            orders: HashMap::from([(
                id,
                OrderRow {
                    id,
                    account: "a".into(),
                    sku: "mug".into(),
                    qty: 2,
                    cents: 1_001,
                    status: "completed".into(),
                    version: 1,
                    reservation: Some("held".into()),
                    is_shipped: true,
                },
            )]),
            sagas: vec![SagaRow {
                id: Uuid::from_u128(3),
                key: id.to_string(),
                status: "completed".into(),
                detail: String::new(),
            }],
            stock: vec![StockRow { sku: "mug".into(), available: STOCK - 2, version: 1 }],
            outbox: HashMap::from([(message, OutboxRow { id: message, key: None, name: "order.placed".into() })]),
            charges: vec![ChargeRow {
                key: "k".into(),
                reference: Some(id),
                account: Some("a".into()),
                cents: Some(1_001),
                status: "charged".into(),
                asked: 1,
            }],
            accounts: BTreeMap::from([("a".into(), CENTS - 1_001)]),
            received: vec![ReceivedRow { message_id: message }],
            parcels: vec![ParcelRow { order_id: id, sku: "mug".into(), qty: 2 }],
            set_aside: BTreeMap::from([("mug".into(), 2)]),
            last_heard: HashMap::from([("mug".into(), 1), (id.to_string(), 1)]),
            ..Ledgers::default()
        };
        (vec![order], ledgers)
    }

    /// What the audit says after one ledger was falsified.
    fn broken(falsify: impl FnOnce(&mut Ledgers)) -> Vec<&'static str> {
        let (placed, mut ledgers) = shop();
        falsify(&mut ledgers);
        audit(&placed, &ledgers).into_iter().filter(|finding| !finding.holds()).map(|finding| finding.claim).collect()
    }

    #[test]
    fn ledgers_that_agree_pass() {
        assert_eq!(broken(|_| {}), [""; 0]);
    }

    #[test]
    fn a_lost_order_is_found() {
        assert!(broken(|all| all.orders.clear()).contains(&"an order that was taken is there, and has a saga"));
    }

    #[test]
    fn a_cent_too_much_is_found() {
        assert_eq!(broken(|all| all.accounts.values_mut().for_each(|cents| *cents += 1)).len(), 1);
    }

    #[test]
    fn a_second_charge_is_found() {
        let broken = broken(|all| all.charges.push(all.charges[0].clone()));
        assert!(broken.contains(&"a completed order was charged once, to the cent"));
    }

    #[test]
    fn an_event_handled_twice_or_lost_is_found() {
        assert_eq!(broken(|all| all.received.push(all.received[0].clone())), ["no event took effect twice"]);
        assert_eq!(broken(|all| all.received.clear()), ["every committed event was delivered"]);
    }

    #[test]
    fn goods_sent_twice_are_found() {
        let broken = broken(|all| all.parcels.push(all.parcels[0].clone()));
        assert_eq!(broken, ["the warehouse sent every shipped order once"]);
    }
}
