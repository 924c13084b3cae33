"""The table: one line for each row, one column for each subject."""


# Leases at which `growth` looks, and peers that have come and gone when `churn` does.
STEPS = (100, 1_000, 4_000, 10_000, 20_000)
CHURNED = (10_000, 100_000)
CHURNED_QUICKLY = (500, 2_000)


def kib(value):
    return f"{value / 1024:.1f} MiB" if value >= 10_240 else f"{value:.0f} KiB"


def mib(value):
    return f"{value / 1_000_000:.2f} MB"


def number(digits, unit=""):
    return lambda value: f"{value:,.{digits}f}{unit}"


def of_find(key, what, how):
    """Three rows of a look-up."""
    measures = (("", "median"), ("_p99", "p99"), ("_longest", "the longest"))
    return [(f"find_{key}{suffix}_ms", f"find {what}, {measure}", number(1, " ms"), how) for suffix, measure in measures]


# (key, what the row says, how the value is written, how it is measured)
ROWS = [
    ("size", "binary", mib, "bytes of the file; js: Node and the packages"),
    ("start_ms", "start to ready", number(0, " ms"), "process start to the line that says it serves, new identity, median"),
    ("idle_rss_kib", "idle RSS", kib, "a native; after an idle minute"),
    ("idle_pss_kib", "idle PSS", kib, "the same"),
    ("idle_anonymous_kib", "of it anonymous", kib, "the same"),
    ("idle_cpu_ms", "CPU in an idle minute", number(0, " ms"), "user and system time of all threads"),
    ("threads", "threads", number(0), "of the same process"),
    ("lease_rss_kib_100", "a lease, of 100", number(1, " KiB"), "growth of RSS by lease, its stream open, after 16 KiB of pings went each way"),
    ("lease_rss_kib_500", "a lease, of 500", number(1, " KiB"), "the same"),
    ("lease_rss_kib_1000", "a lease, of 1000", number(1, " KiB"), "the same"),
    ("lease_rss_kib_4000", "a lease, of 4000", number(1, " KiB"), "the same"),
    ("bare_rss_kib_500", "a lease without a record, of 500", number(1, " KiB"), "the same, of peers that cannot be looked up"),
    ("bare_rss_kib_1000", "a lease without a record, of 1000", number(1, " KiB"), "the same"),
    ("lease_pss_kib_1000", "a lease, of 1000, PSS", number(1, " KiB"), "growth of PSS"),
    ("lease_anonymous_kib_1000", "a lease, of 1000, anonymous", number(1, " KiB"), "growth of anonymous memory"),
    ("whole_rss_kib_1000", "RSS with 1000 leases", kib, "the whole process"),
    ("left_rss_kib", "RSS after 1000 have left", kib, "a minute later (absolute; compare with idle)"),
    ("join_cpu_ms", "CPU of a join", number(2, " ms"), "server's CPU time, handshake to first answer, without a signed record"),
    ("join_record_cpu_ms", "CPU of a join with its record", number(2, " ms"), "the record's signature is verified and it goes into the DHT; rendezvous: a registration"),
    ("storm_peers", "storm: peers that come at once", number(0), "with their records, while 200 others beat each second; server and clients have a core each"),
    ("storm_joins_per_s", "storm: joins/s", number(0), "until all have joined"),
    ("storm_cpu_ms", "storm: CPU of a join", number(2, " ms"), "of the server, the beats of the others included"),
    ("storm_beats", "storm: beats of the others", number(0), "in 10 s that begin with the storm"),
    ("storm_late", "storm: of these answered late", number(0), "later than the earliest time at which the next may be due: 50 ms"),
    ("storm_longest_ms", "storm: the longest wait for an ack", number(0, " ms"), "the same"),
    ("beats_per_s", "beats/s on one core", number(0), "1000 leases, each beats as soon as it is answered; server and client have a core each"),
    ("beats_per_cpu_s", "beats per CPU second", number(0), "of the server's own CPU time"),
    ("echo_per_cpu_s", "plain TCP echo per CPU second", number(0), "async-io, the same bytes, the same client, no encryption"),
    ("beats_share", "beats, share of the echo", number(2), "of what one core answers"),
    ("beats_share_cpu", "beats, share of the echo by CPU", number(2), "of what a CPU second answers"),
    *[(f"growth_rss_kib_{n}", f"growth: a lease, of {n}", number(1, " KiB"), "one process; growth of RSS by lease after the first, after 16 KiB of pings went each way") for n in STEPS],
    *[(f"growth_more_kib_{n}", f"growth: a further lease, up to {n}", number(1, " KiB"), "the same, by lease more than in the step before") for n in STEPS],
    *[(f"growth_beat_us_{n}", f"growth: CPU of a beat, of {n} leases", number(1, " µs"), "the same process; each lease beats as soon as it is answered") for n in STEPS],
    (f"growth_held_{STEPS[-1]}", "growth: leases in the last step", number(0), "as many as open files are allowed, if fewer"),
    *[(f"churn_rss_kib_{n}", f"RSS after {n} have joined and left", kib, "a minute later (quick: half of it)") for n in (*CHURNED_QUICKLY, *CHURNED)],
    *[(f"churn_descriptors_{n}", f"its descriptors after {n}", number(0), "the same") for n in (*CHURNED_QUICKLY, *CHURNED)],
    ("list_nodes", "listing, nodes", number(0), "a native and four indexers; the load client holds their leases"),
    ("list_first_ms", "listing, first row", number(0, " ms"), "`nodes --json` asked of the native: until its first line, median"),
    ("list_ms", "listing, whole", number(0, " ms"), "until it ends, with all of them, median"),
    ("list_longest_ms", "listing, the longest", number(0, " ms"), "of nine"),
    ("find_nodes", "find, nodes", number(0), "a native and four indexers as above; asked on a node that holds its lease with one of these"),
    *of_find("start", "the start of a process alone", "`oc-discovery --version`"),
    *of_find("near", "by name, its own indexer has it", "`find --json`, 250 of its names"),
    *of_find("near_socket", "the same, without a process", "asked of the daemon's socket"),
    *of_find("far", "by name, another indexer has it", "`find --json`, 250 names of the other three, each once"),
    *of_find("far_socket", "the same, without a process", "asked of the daemon's socket, 250 other names"),
    ("failover_nodes", "failover and re-homing, nodes", number(0), "real processes, each `oc-discovery node`"),
    ("failover_median_s", "failover, median", number(2, " s"), "their only indexer is killed (SIGKILL), another is known: until they hold a new lease, with it or with the native"),
    ("failover_p99_s", "failover, p99", number(2, " s"), "the same"),
    ("failover_indexer_median_s", "failover to an indexer, median", number(2, " s"), "until they hold a lease with the other indexer"),
    ("failover_indexer_p99_s", "failover to an indexer, p99", number(2, " s"), "the same"),
    ("rehoming_median_s", "re-homing, median", number(2, " s"), "a native has taken the node processes in, two indexers appear; the offload loop runs every 30 s"),
    ("rehoming_p99_s", "re-homing, p99", number(2, " s"), "the same"),
]


def ratio(value, first):
    """How many times the first column's figure it is; `None` where either is missing, no number or nothing."""
    figures = isinstance(value, (int, float)) and isinstance(first, (int, float))
    return value / first if figures and value and first else None


def ratios(columns):
    """subject -> key -> how many times the first subject's figure it is."""
    first = next((rows for _, rows in columns.values()), {})
    return {
        name: {key: times for key, *_ in ROWS if (times := ratio(rows.get(key), first.get(key))) is not None}
        for name, (_, rows) in columns.items()
    }


def table(columns, absent):
    """`columns`: subject -> (version, rows). `absent`: subject -> why."""
    names = list(columns)
    times = ratios(columns)
    heads = [f"{name} {columns[name][0]}".strip() for name in names] + list(absent)
    lines = [
        "| what | " + " | ".join(heads) + " | how |",
        "|---|" + "---:|" * len(heads) + "---|",
    ]
    for key, what, write, how in ROWS:
        cells = [columns[name][1].get(key) for name in names]
        if all(cell is None for cell in cells):
            continue
        written = ["–" if cell is None else cell if isinstance(cell, str) else write(cell) for cell in cells]
        # Machines differ, so each figure is followed by its ratio to the first one.
        for at, name in enumerate(names[1:], start=1):
            if key in times[name]:
                written[at] += f" ({times[name][key]:.{0 if times[name][key] >= 10 else 1}f}×)"
        lines.append(f"| {what} | " + " | ".join(written + ["absent"] * len(absent)) + f" | {how} |")
    return "\n".join(lines)
