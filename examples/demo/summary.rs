//! The table at the end, and what to look at when an invariant is broken.

use std::collections::HashSet;

use crate::audit::{Area, Finding};
use crate::chaos::Recovery;
use crate::ledgers::{ChargeRow, Ledgers};

/// So many offenders of one invariant are shown; the rest is counted.
const SHOWN: usize = 10;

/// Prints what happened, and whether it should have.
pub(crate) fn print(ledgers: &Ledgers, findings: &[Finding], duplicates: u64, recovery: &[Recovery]) {
    let verdict = |area| {
        let holds = findings.iter().all(|finding| finding.area != area || finding.holds());
        if holds { "✔" } else { "✘" }
    };
    let mut rows = vec![
        (verdict(Area::Orders), "orders", orders(ledgers)),
        (verdict(Area::Money), "money", money(ledgers)),
        (verdict(Area::Money), "charges", requests(ledgers)),
        (verdict(Area::Stock), "stock", stock(ledgers)),
        (verdict(Area::Events), "events", events(ledgers, duplicates)),
        (verdict(Area::Order), "order", order(ledgers)),
    ];
    rows.extend(recovery.iter().map(|recovery| (verdict(Area::Recovery), recovery.victim, recovery.to_string())));
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
    if broken.is_empty() {
        println!("  all {} invariants hold", findings.len());
    } else {
        println!("  {} of {} invariants are BROKEN", broken.len(), findings.len());
    }
}

fn orders(ledgers: &Ledgers) -> String {
    let count = |status: &str| ledgers.sagas.iter().filter(|saga| saga.status == status).count();
    let (completed, compensated) = (count("completed"), count("compensated"));
    let open = ledgers.sagas.len() - completed - compensated;
    let refused: HashSet<_> =
        charges(ledgers, "refused").filter_map(|charge| charge.reference).map(|order| order.to_string()).collect();
    let cancelled = ledgers.cancelled.iter().filter(|order| !refused.contains(*order)).count();
    format!(
        "{} placed = {completed} completed + {compensated} compensated ({} cards refused, {cancelled} cancelled){}",
        ledgers.orders.len(),
        refused.len(),
        if open > 0 { format!(" + {open} OPEN") } else { String::new() },
    )
}

fn money(ledgers: &Ledgers) -> String {
    let sum = |status| euros(charges(ledgers, status).filter_map(|charge| charge.cents).sum());
    let completed = ledgers.orders.values().filter(|order| order.status == "completed");
    let due = euros(completed.map(|order| order.cents).sum());
    format!("{} charged = {due} for completed orders; {} given back", sum("charged"), sum("refunded"))
}

fn requests(ledgers: &Ledgers) -> String {
    let repeated: i64 = ledgers.charges.iter().map(|charge| i64::from(charge.asked) - 1).sum();
    let tombstones = charges(ledgers, "void").count();
    format!("{repeated} repetitions taken once; {tombstones} tombstones for charges that came too late or never")
}

fn charges<'a>(ledgers: &'a Ledgers, status: &'a str) -> impl Iterator<Item = &'a ChargeRow> {
    ledgers.charges.iter().filter(move |charge| charge.status == status)
}

fn stock(ledgers: &Ledgers) -> String {
    let sold: i64 =
        ledgers.orders.values().filter(|order| order.status == "completed").map(|order| i64::from(order.qty)).sum();
    let left: i64 = ledgers.stock.iter().map(|stock| i64::from(stock.available)).sum();
    let first = i64::from(crate::customers::STOCK) * ledgers.stock.len() as i64;
    let parcels = ledgers.parcels.len();
    format!("{first} at first = {left} left + {} gone; {sold} sold, in {parcels} parcels", first - left)
}

fn events(ledgers: &Ledgers, duplicates: u64) -> String {
    format!(
        "{} committed, {} handled, {} duplicates absorbed",
        ledgers.outbox.len(),
        ledgers.received.len(),
        duplicates
    )
}

fn order(ledgers: &Ledgers) -> String {
    format!("{} keys, {} events out of their key's order", ledgers.last_heard.len(), ledgers.disorder.len())
}

fn euros(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, (cents % 100).abs())
}
