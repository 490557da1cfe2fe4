//! The overview as a table for people.

use std::fmt::Write;

use amends_postgres::status::{MAX_LAG_ROWS, Overview};

pub(crate) fn table(overview: &Overview) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_table(&mut text, overview);
    text
}

fn write_table(out: &mut String, overview: &Overview) -> std::fmt::Result {
    writeln!(out, "{:<32} {:<14} {:>9}  OVERDUE", "SAGA", "STATUS", "COUNT")?;
    for saga in &overview.sagas {
        let overdue = if saga.overdue_seconds > 0.0 { format!("{:.1} s", saga.overdue_seconds) } else { "-".into() };
        writeln!(out, "{:<32} {:<14} {:>9}  {overdue}", saga.name, saga.status, saga.count)?;
    }
    writeln!(out, "\n{:<32} {:<14} {:>9}", "WORKER", "LEASE", "SAGAS")?;
    for worker in &overview.workers {
        writeln!(
            out,
            "{:<32} {:<14} {:>9}",
            worker.name,
            if worker.alive { "alive" } else { "run out" },
            worker.sagas
        )?;
    }
    writeln!(
        out,
        "\n{:<6} {:<25} {:<14} {:>9}  {:<9} {:>6} {:>6}",
        "LANE", "RELAY", "LEASE", "LAG", "AGE", "HELD", "PARKED"
    )?;
    for lane in &overview.lanes {
        let lag = if lane.lag_rows >= MAX_LAG_ROWS { format!("{MAX_LAG_ROWS}+") } else { lane.lag_rows.to_string() };
        writeln!(
            out,
            "{:<6} {:<25} {:<14} {lag:>9}  {:<9} {:>6} {:>6}",
            lane.lane,
            lane.owner_name.as_deref().unwrap_or("-"),
            if lane.alive { "alive" } else { "none" },
            format!("{:.1} s", lane.lag_seconds),
            lane.held,
            lane.parked,
        )?;
    }
    let layout = &overview.layout;
    writeln!(out, "\n{} relays could publish", layout.relays)?;
    if layout.paused {
        writeln!(out, "All relays are paused; `amends-relay resume` lets them go on.")?;
    }
    if let Some(next) = layout.next_lanes {
        writeln!(out, "There will be {next} lanes, once those of now have published what was there.")?;
    }
    Ok(())
}
