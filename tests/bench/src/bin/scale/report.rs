//! The figures, for people and for programs.

use crate::scenario::Row;

/// A Markdown table.
pub fn table(rows: &[Row]) {
    println!(
        "| scenario | 90 % | 99 % | 100 % | native, messages/s: busiest (mean) | indexer | leases, most/mean \
         | two leases | at natives | none | run |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for row in rows {
        let [most, nearly, all] = row
            .times
            .map(|time| time.map_or("never".into(), |ms| format!("{:.2} s", ms as f64 / 1000.0)));
        let [two, native, none] = row.shares.map(|percent| format!("{percent:.1} %"));
        let work = |(busiest, mean): (u64, f64)| format!("{busiest} ({mean:.0})");
        let spread = row
            .spread
            .map_or("–".into(), |spread| format!("{spread:.2}"));
        println!(
            "| {} | {most} | {nearly} | {all} | {} | {} | {spread} | {two} | {native} | {none} | {:.1} s{} |",
            row.name,
            work(row.native),
            work(row.indexer),
            row.wall_ms as f64 / 1000.0,
            row.stopped.map_or(String::new(), |ms| {
                format!(", ended at {:.0} s: too many messages", ms as f64 / 1000.0)
            }),
        );
    }
    lookups(rows);
}

/// What lookups have cost.
fn lookups(rows: &[Row]) {
    for row in rows {
        let Some(tally) = &row.lookups else { continue };
        println!(
            "\n{}: {} of {} found, {} complete; messages of a lookup: {} at most, {} at 99 %, {:.1} on average; \
             the slowest took {} ms",
            row.name,
            tally.found,
            tally.pairs,
            tally.complete,
            tally.messages(100),
            tally.messages(99),
            tally.mean(),
            tally.slowest,
        );
    }
}

/// One JSON document. Times are in ms, null for never.
pub fn json(rows: &[Row]) {
    let rows: Vec<_> = rows.iter().map(object).collect();
    println!(
        "{{\"schema\": 1, \"scenarios\": [\n{}\n]}}",
        rows.join(",\n")
    );
}

/// The lookups of a row as JSON.
fn found(row: &Row) -> String {
    row.lookups.as_ref().map_or("null".into(), |tally| {
        format!(
            "{{\"pairs\": {}, \"found\": {}, \"complete\": {}, \"messages_most\": {}, \"messages_p99\": {}, \
             \"messages_mean\": {:.1}, \"slowest_ms\": {}}}",
            tally.pairs,
            tally.found,
            tally.complete,
            tally.messages(100),
            tally.messages(99),
            tally.mean(),
            tally.slowest,
        )
    })
}

/// No name has a character that must be escaped in JSON.
fn object(row: &Row) -> String {
    let [most, nearly, all] = row
        .times
        .map(|time| time.map_or("null".into(), |ms| ms.to_string()));
    let [two, native, none] = row.shares;
    let spread = row
        .spread
        .map_or("null".into(), |spread| format!("{spread:.3}"));
    format!(
        "  {{\"name\": \"{}\", \"to_90_percent_ms\": {most}, \"to_99_percent_ms\": {nearly}, \"to_100_percent_ms\": {all}, \
         \"native_busiest\": {}, \"native_mean\": {:.1}, \"indexer_busiest\": {}, \"indexer_mean\": {:.1}, \
         \"leases_most_to_mean\": {spread}, \"two_leases_percent\": {two:.2}, \"at_natives_percent\": {native:.2}, \
         \"no_lease_percent\": {none:.2}, \"ended_early_at_ms\": {}, \"lookups\": {}, \"missed\": {}, \"wall_ms\": {}}}",
        row.name,
        row.native.0,
        row.native.1,
        row.indexer.0,
        row.indexer.1,
        row.stopped.map_or("null".into(), |ms| ms.to_string()),
        found(row),
        row.missed
            .as_ref()
            .map_or("null".into(), |why| format!("\"{why}\"")),
        row.wall_ms,
    )
}
