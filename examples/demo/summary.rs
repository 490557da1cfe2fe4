//! The table at the end, and what to look at when an invariant is broken.

use std::time::Duration;

use crate::audit::{Area, Finding};
use crate::chaos::Recovery;
use crate::ledgers::Ledgers;

/// So many offenders of one invariant are shown; the rest is counted.
const SHOWN: usize = 10;

/// Prints what happened, and whether it should have.
pub(crate) fn print(seed: u64, ledgers: &Ledgers, findings: &[Finding], recovery: &[Recovery], took: Duration) {
    let verdict = |area| match findings.iter().all(|finding| finding.area != area || finding.holds()) {
        true => "✔",
        false => "✘",
    };
    let mut rows = vec![
        (verdict(Area::Orders), "orders", orders(ledgers)),
        (verdict(Area::Money), "money", money(ledgers)),
        (verdict(Area::Money), "", requests(ledgers)),
        (verdict(Area::Stock), "stock", stock(ledgers)),
        (verdict(Area::Events), "events", events(ledgers)),
        (verdict(Area::Order), "order", order(ledgers)),
    ];
    rows.extend(recovery.iter().map(|recovery| ("·", recovery.victim, recovery.to_string())));
    println!();
    for (mark, name, text) in rows {
        println!("  {mark} {name:<10} {text}");
    }
    let broken: Vec<_> = findings.iter().filter(|finding| !finding.holds()).collect();
    println!();
    for finding in &broken {
        println!("  ✘ broken: {}", finding.claim);
        finding.offenders.iter().take(SHOWN).for_each(|offender| println!("      {offender}"));
        if finding.offenders.len() > SHOWN {
            println!("      and {} more", finding.offenders.len() - SHOWN);
        }
    }
    let seconds = took.as_secs_f64();
    if broken.is_empty() {
        println!("  all {} invariants hold (seed {seed}, {seconds:.1} s)", findings.len());
    } else {
        println!("  {} of {} invariants are BROKEN (seed {seed}, {seconds:.1} s)", broken.len(), findings.len());
    }
}

fn orders(ledgers: &Ledgers) -> String {
    let count = |status: &str| ledgers.sagas.iter().filter(|saga| saga.status == status).count();
    let (completed, compensated) = (count("completed"), count("compensated"));
    let open = ledgers.sagas.len() - completed - compensated;
    let mut text = format!("{} placed = {completed} completed + {compensated} compensated", ledgers.orders.len());
    if open > 0 {
        text += &format!(" + {open} OPEN");
    }
    text
}

fn money(ledgers: &Ledgers) -> String {
    let sum = |status: &str| -> i64 {
        let charges = ledgers.charges.iter().filter(|charge| charge.status == status);
        charges.filter_map(|charge| charge.cents).sum()
    };
    let due = ledgers.orders.values().filter(|order| order.status == "completed").map(|order| order.cents).sum();
    format!("{} charged, {} due; {} given back", euros(sum("charged")), euros(due), euros(sum("refunded")))
}

fn requests(ledgers: &Ledgers) -> String {
    let count = |status: &str| ledgers.charges.iter().filter(|charge| charge.status == status).count();
    let repeated: i64 = ledgers.charges.iter().map(|charge| i64::from(charge.asked) - 1).sum();
    let mut reasons: Vec<_> = ledgers.charges.iter().filter_map(|charge| charge.code.clone()).collect();
    reasons.sort();
    reasons.dedup();
    format!(
        "{} cards refused ({}), {repeated} charges asked for again and taken once, {} tombstones",
        count("refused"),
        if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") },
        count("void"),
    )
}

fn stock(ledgers: &Ledgers) -> String {
    let sold: i64 =
        ledgers.orders.values().filter(|order| order.status == "completed").map(|order| i64::from(order.qty)).sum();
    let left: i64 = ledgers.stock.iter().map(|stock| i64::from(stock.available)).sum();
    let first = i64::from(crate::customers::STOCK) * ledgers.stock.len() as i64;
    let parcels = ledgers.parcels.len();
    format!("{first} at first = {left} left + {} gone, {sold} of them in {parcels} parcels", first - left)
}

fn events(ledgers: &Ledgers) -> String {
    format!(
        "{} committed, {} handled; {} duplicates absorbed",
        ledgers.outbox.len(),
        ledgers.received.len(),
        ledgers.duplicates
    )
}

fn order(ledgers: &Ledgers) -> String {
    format!("{} keys, {} events out of order", ledgers.last_heard.len(), ledgers.disorder.len())
}

fn euros(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, (cents % 100).abs())
}
