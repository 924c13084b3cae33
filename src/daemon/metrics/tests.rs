use std::collections::BTreeSet;

use miniserde::json;

use super::*;
use crate::daemon::status::Problem;

const README: &str = include_str!("../../../README.md");

/// A file that packages bring along, and the feed of OpenWrt does not.
fn monitoring(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/targets/monitoring/");
    std::fs::read_to_string(format!("{path}{name}")).unwrap()
}

fn example() -> Status {
    json::from_str(include_str!("../status/example.json")).unwrap()
}

/// The name of the samples.
fn full(metric: &Metric) -> String {
    let suffix = match metric.kind {
        Counter => "_total",
        Gauge => "",
    };
    format!("{PREFIX}{}{suffix}", metric.name)
}

#[test]
fn metrics_are_written_in_both_formats() {
    let status = example();
    let open = render(&status, Format::OpenMetrics);
    for line in [
        "# HELP oc_discovery_joins Peers that were granted a lease: new, back again, or taken in by a native.",
        "# TYPE oc_discovery_joins counter",
        "oc_discovery_joins_total{role=\"native\",kind=\"new\"} 3",
        "oc_discovery_build_info{role=\"native\",version=\"0.1.0\"} 1",
        "oc_discovery_uptime_seconds{role=\"native\"} 61.000",
        "oc_discovery_verdict{role=\"native\",state=\"degraded\"} 1",
        "oc_discovery_verdict{role=\"native\",state=\"ok\"} 0",
        "oc_discovery_problems{role=\"native\",code=\"handshake-refused\",severity=\"warning\"} 1",
        "oc_discovery_leases_granted{role=\"native\",peer_role=\"indexer\"} 1",
        "oc_discovery_loop_run_seconds_total{role=\"native\",loop=\"offload\"} 0.012",
        "oc_discovery_loop_last_run_age_seconds{role=\"native\",loop=\"gc\"} 61.000",
        "oc_discovery_table_entries{role=\"native\",table=\"live_indexers\"} 2",
        "oc_discovery_cpu_seconds_total{role=\"native\"} 0.812",
    ] {
        assert!(
            open.lines().any(|it| it == line),
            "{line} is not in\n{open}"
        );
    }
    assert!(
        !open.contains("run_seconds_total{role=\"native\",loop=\"gc\""),
        "its runs end when they begin"
    );
    assert!(open.ends_with("\n# EOF\n"));
    #[cfg(feature = "http")]
    {
        let text = render(&status, Format::Text);
        let renamed = open
            .replace("# EOF\n", "")
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.splitn(4, ' ').collect();
                match words.as_slice() {
                    ["#", kind, name, rest]
                        if METRICS.iter().any(|it| {
                            it.kind == Counter && format!("{PREFIX}{}", it.name) == **name
                        }) =>
                    {
                        format!("# {kind} {name}_total {rest}\n")
                    }
                    _ => format!("{line}\n"),
                }
            })
            .collect::<String>();
        assert_eq!(text, renamed);
    }
}

#[cfg(feature = "http")]
#[test]
fn client_gets_the_format_that_it_accepts() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1,";
    assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
    for other in ["", "*/*,", "text/plain;version=0.0.4,"] {
        assert_eq!(Format::accepted(other), Format::Text);
    }
}

#[test]
fn no_series_is_written_twice_and_no_peer_is_named() {
    let mut status = example();
    status.problems.push(status.problems[0].clone());
    let other = Problem {
        code: "copied \"card\"\\\n".into(),
        severity: Severity::Notice,
        ..status.problems[0].clone()
    };
    status.problems.push(other);
    let text = render(&status, Format::OpenMetrics);
    let series: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, _)| name)
        .collect();
    let different: BTreeSet<&str> = series.iter().copied().collect();
    assert_eq!(series.len(), different.len());
    assert!(!text.contains("12D3KooW"), "{text}");
    for sample in [
        "code=\"handshake-refused\",severity=\"warning\"} 2\n",
        "code=\"copied \\\"card\\\"\\\\\\n\",severity=\"notice\"} 1\n",
    ] {
        assert!(text.contains(sample), "{text}");
    }
}

#[test]
fn metric_that_does_not_apply_to_a_role_is_left_out() {
    let mut status = example();
    status.role = Role::Node;
    let text = render(&status, Format::OpenMetrics);
    assert!(
        !text.contains("live_indexers{") && !text.contains("responsible_nodes"),
        "{text}"
    );
    assert!(
        text.contains("oc_discovery_checks_failing{role=\"node\"} 1\n"),
        "{text}"
    );
}

#[test]
fn readme_lists_all_metrics() {
    let rows: String = METRICS
        .iter()
        .map(|metric| {
            format!(
                "| `{}` | {} |\n",
                full(metric),
                metric.help.trim_end_matches('.')
            )
        })
        .collect();
    assert!(README.contains(&rows), "its table must be\n{rows}");
}

#[test]
fn alerts_and_dashboard_name_only_metrics_that_there_are() {
    let known: BTreeSet<String> = METRICS.iter().map(full).collect();
    for (file, text) in [
        ("the rules", &monitoring("oc-discovery.rules.yml")),
        ("the dashboard", &monitoring("grafana.json")),
    ] {
        let names = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let used: BTreeSet<String> = names
            .filter(|name| name.starts_with(PREFIX))
            .map(str::to_owned)
            .collect();
        assert!(used.len() > 5, "{used:?}");
        assert_eq!(used.difference(&known).next(), None, "{file}");
    }
    let dashboard = json::from_str::<json::Object>(&monitoring("grafana.json")).unwrap();
    assert!(dashboard.contains_key("panels"));
}
