// The panels beside the picture, and the list.

const LOOPS = {
  offload: ["Offload", "nodes taken in go to reachable indexers", "released"],
  refresh: ["DHT refresh", "stale indexers are searched for", "found"],
  gc: ["Stream GC", "silent streams are closed", "closed"],
};
const PAGE_ROWS = 50;
const FEW = 9;
const filters = { name: "", role: "", service: "", tag: "", at: "" };
const opened = new Set();
let shown = PAGE_ROWS;
let allTables = false;
let allGone = false;
let known = new Map();

const isCritical = (problem) => /^crit/i.test(problem.severity);

function drawTop(s) {
  const word = level(s);
  attr($("verdict"), "class", `card ${{ OK: "ok", STARTING: "", CRITICAL: "crit" }[word] ?? "warn"}`);
  put($("level"), word);
  put($("sentence"), clean(s.verdict?.summary));
  put($("self"), `${s.role} ${clean(s.name) || short(s.peer_id)} · version ${clean(s.version)} · up ${span(s.uptime_ms + now() - S.at)}`);
  const title = `${word} · ${s.role} ${clean(s.name) || short(s.peer_id)}`;
  if (document.title !== title) document.title = title;
  const troubles = list(s.problems).length ? [] : list(s.troubles).map((one) => ({ code: "trouble", what: `${titled(one.peer_id)}: ${one.what}` }));
  sync($("problems"), [...list(s.problems), ...troubles].sort((a, b) => isCritical(b) - isCritical(a)), (one) => `${one.code} ${one.what}`, () =>
    h("li", {}, h("b"), h("span", { class: "what" }), h("span", { class: "dim" }), h("span", { class: "hint" })),
  (li, one) => {
    const [b, what, when, hint] = li.children;
    attr(b, "class", isCritical(one) ? "is-crit" : "is-warn");
    put(b, isCritical(one) ? "critical" : "warning");
    put(what, clean(one.what));
    put(when, [one.since_ms == null ? "" : `for ${span(one.since_ms)}`, one.count > 1 ? `${number(one.count)} times` : ""].filter(Boolean).join(", "));
    put(hint, clean(one.hint));
  });
}

function drawLink() {
  const { lost } = S;
  attr($("link"), "class", lost ? "off" : S.status ? "" : "wait");
  const wait = lost && Math.max(0, Math.ceil((lost.until - now()) / 1000));
  const age = lost ? Math.floor((now() - lost.since) / 5000) * 5 : 0;
  put($("link"), !lost ? (S.status ? "Connected" : "Connecting") : `Connection lost${age ? ` for ${span(age * 1000)}` : ""}; ${wait > 1 ? "tries again in a few seconds" : "tries again now"}. What is shown is old.`);
  document.body.classList.toggle("lost", Boolean(lost));
  const feed = { live: "live", connecting: "connecting" }[S.feed] || S.feed;
  put($("feed"), lost ? "waits for the daemon" : feed);
}

function drawLoops(s) {
  const names = Object.keys(LOOPS).filter((name) => s.loops?.[name]);
  $("loops").hidden = !names.length;
  sync($("loop-list"), names, (name) => name, (name) => {
    const [title, what] = LOOPS[name];
    return h("li", {},
      h("svg", { viewBox: "0 0 58 58", "aria-hidden": "true" }, h("circle", { cx: 29, cy: 29, r: 26 }),
        h("circle", { cx: 29, cy: 29, r: 26, pathLength: 100, "stroke-dasharray": 100, transform: "rotate(-90 29 29)" }), h("text", { x: 29, y: 29 })),
      h("b", { title: what }, title), h("span", { class: "dim" }), h("span", { class: "dim" }));
  }, (li, name) => {
    const { runs, last_ms, interval_ms, done } = s.loops[name];
    const [svg, , next, last] = li.children;
    const since = (last_ms ?? s.uptime_ms) + now() - S.at;
    // A run after the last answer is not known yet.
    const rest = since > interval_ms + 2 * STATUS_MS ? 0 : interval_ms - (since % interval_ms);
    put(svg.children[2], rest > 99e3 ? `${Math.ceil(rest / 6e4)}m` : String(Math.ceil(rest / 1000)));
    attr(svg.children[1], "stroke-dashoffset", (100 - (100 * rest) / interval_ms).toFixed(0));
    put(next, rest ? `next run in ${span(rest)}` : "next run: due now");
    const outcome = done === undefined ? "" : done ? `${number(done)} ${LOOPS[name][2]}` : "nothing to do";
    put(last, runs ? [`ran ${span(since)} ago`, outcome, count(runs, "run")].filter(Boolean).join(" · ") : "has not run yet");
  });
}

const tagsOf = (peer) => list(peer.tags);
function admits(peer) {
  const { name, role, service, tag, at } = filters;
  const word = name.toLowerCase();
  return (!word || peer.name.toLowerCase().includes(word) || peer.id.toLowerCase().endsWith(word) || peer.id === name)
    && (!role || peer.role === role)
    && (!service || peer.services.some((one) => one.name === service))
    && (!tag || tagsOf(peer).includes(tag))
    && (!at || peer.server === at || peer.id === at || (at === "?" && peer.role === "node" && !peer.server));
}

function choices(select, all, values, name = (value) => value) {
  const old = filters[select.id.slice(2)];
  const wanted = ["", ...values];
  if (old && !values.includes(old)) wanted.push(old);
  sync(select, wanted, (value) => value, (value) => h("option", { value }), (el, value) => put(el, value ? name(value) : all));
  if (select.value !== old) select.value = old;
}

// What the list lacks.
function lacking() {
  const { tally, listError } = S;
  if (listError) return `; list failed: ${listError}`;
  return !tally || tally.complete ? "" : `; incomplete: ${tally.answered} of ${count(tally.asked, "server")} answered`;
}

const RANK = { native: 0, indexer: 1, node: 2 };
function drawWho(s) {
  const everyone = [...known.values()];
  const there = everyone.filter((peer) => !["left", "lost"].includes(peer.state) && !peer.gone);
  const unique = (values) => [...new Set(values)].sort().slice(0, 300);
  choices($("f-role"), "any", ["native", "indexer", "node"]);
  choices($("f-service"), "any", unique(there.flatMap((peer) => peer.services.map((one) => one.name))));
  choices($("f-tag"), "any", unique(there.flatMap(tagsOf)));
  choices($("f-at"), "anyone", unique(there.filter((peer) => peer.role !== "node").map((peer) => peer.id)), (id) => (id === "?" ? "not told" : titledPeer(id)));
  const fit = there.filter(admits).sort((a, b) => RANK[a.role] - RANK[b.role] || !a.name - !b.name || a.name.localeCompare(b.name, "en", { numeric: true }) || (a.id < b.id ? -1 : 1));
  const counted = fit.length === there.length ? count(there.length, "peer") : `${number(fit.length)} of ${count(there.length, "peer")}`;
  put($("count"), counted + lacking());
  const rows = fit.slice(0, shown).flatMap((peer) => (opened.has(peer.id) ? [{ peer, key: peer.id }, { peer, key: `+${peer.id}` }] : [{ peer, key: peer.id }]));
  sync($("list").tBodies[0], rows, (row) => row.key, (row) => (row.key[0] === "+" ? makeMore() : makeRow(row.peer)), (tr, row) => (row.key[0] === "+" ? updateMore(tr, row.peer) : updateRow(tr, row.peer)));
  $("list").hidden = !fit.length;
  $("none").hidden = fit.length > 0;
  put($("none"), there.length > 1 ? "No peer fits this filter." : "No other peer is known yet.");
  $("more").hidden = fit.length <= shown;
  put($("more"), `Show ${number(Math.min(PAGE_ROWS, fit.length - shown))} more of ${number(fit.length)}`);
  const gone = everyone.filter((peer) => (peer.gone || ["left", "lost"].includes(peer.state)) && admits(peer)).sort((a, b) => b.seen - a.seen);
  put($("gone-h"), gone.length ? `Who has vanished (${number(gone.length)})` : "Who has vanished");
  $("gone-none").hidden = gone.length > 0;
  $("all-gone").hidden = gone.length <= FEW;
  put($("all-gone"), allGone ? `Only the latest ${FEW}` : "Show all");
  sync($("gone"), allGone ? gone : gone.slice(0, FEW), (peer) => peer.id, (peer) =>
    h("li", {}, h("b"), h("span", { class: "id", title: peer.id }, short(peer.id)), " ", h("span")),
  (li, peer) => {
    const state = stateOf(peer);
    put(li.children[0], peer.name || peer.role);
    put(li.children[2], state.text);
    attr(li.children[2], "class", state.tone || "dim");
  });
}

const titledPeer = (id) => known.get(id)?.name || (id === S.status?.peer_id ? "this daemon" : short(id));

// With which server, or how long a server's own lease lasts.
function leaseOf(peer) {
  const servers = peer.me ? list(S.status.leases).map((one) => one.peer_id) : peer.server ? [peer.server] : [];
  const rest = peer.left ? `ends in ${span(peer.left - now())}` : "";
  return servers.length ? `with ${servers.map(titledPeer).join(", ")}` : rest;
}

function makeRow(peer) {
  const toggle = () => { opened.delete(peer.id) || opened.add(peer.id); draw(); };
  return h("tr", { "data-id": peer.id },
    h("td", {}, h("button", { class: "who", type: "button", click: toggle }), h("span", { class: "id" }, short(peer.id))),
    h("td"), h("td"), h("td", { class: "wide" }), h("td", { class: "wide" }));
}

function updateRow(tr, peer) {
  const [name, role, state, at, what] = tr.children;
  put(name.firstChild, peer.name || (peer.role === "node" ? "(no name)" : peer.role));
  attr(name.firstChild, "aria-expanded", opened.has(peer.id));
  put(role, peer.role);
  const now_state = stateOf(peer);
  put(state, now_state.text);
  attr(state, "class", now_state.tone);
  put(at, leaseOf(peer));
  sync(what, [...peer.services.map((one) => ["svc", one.text]), ...tagsOf(peer).map((tag) => ["tag", tag])], String, ([kind, text]) => h("span", { class: `chip ${kind}` }, text));
}

function makeMore() {
  return h("tr", { class: "more" }, h("td", {}, h("dl")));
}

function updateMore(tr, peer) {
  attr(tr.firstChild, "colspan", $("list").tHead.rows[0].lastChild.offsetWidth ? 5 : 3);
  const facts = [
    ["Peer id", peer.id],
    ["Addresses", peer.addresses.join("\n") || "not known"],
    ["Services", peer.services.map((one) => one.text).join(", ")],
    ["Tags", tagsOf(peer).join(", ")],
    ["Last beat", peer.beat ?? peer.seen ? `${span(now() - (peer.beat ?? peer.seen))} ago` : ""],
    ["Lease", leaseOf(peer)],
    ["Version", clean(peer.version)],
  ].filter(([, value]) => value);
  const dl = tr.firstChild.firstChild;
  sync(dl, facts.flatMap(([term, value]) => [["t", term], ["d", term, value]]), ([kind, term]) => kind + term, ([kind, term]) => {
    if (kind === "t") return h("dt", {}, term);
    const value = h("span", { class: term === "Peer id" || term === "Addresses" ? "id" : "" });
    return h("dd", {}, value, ...(term === "Peer id" ? [copyButton(peer.id, "Copy the id")] : []));
  }, (el, [kind, , value]) => { if (kind === "d") put(el.firstChild, value); });
}

function copyButton(text, label) {
  return h("button", { type: "button", class: "plain", "aria-label": label, click: async (event) => {
    const button = event.currentTarget;
    let done = false;
    try { await navigator.clipboard.writeText(text); done = true; } catch {
      // Without TLS, browsers have no clipboard except on this host: the old way.
      getSelection().selectAllChildren(button.previousElementSibling);
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Selected";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  } }, "Copy");
}

function drawTables(s) {
  const all = list(s.tables).map((one) => ({ ...one, share: one.capacity ? one.used / one.capacity : 0 }));
  const worth = all.filter((one) => one.used || one.refused || one.evicted);
  const rows = (allTables ? all : worth).sort((a, b) => b.share - a.share || (a.name < b.name ? -1 : 1));
  put($("all-tables"), allTables ? "Only those in use" : `All ${all.length}`);
  attr($("all-tables"), "aria-expanded", allTables);
  sync($("table-list"), rows, (one) => one.name, (one) =>
    h("li", {}, h("div", { class: "head" }, h("code", { title: one.name }, clean(one.name)), h("span")),
      h("div", { class: "bar", role: "meter", "aria-label": clean(one.name), "aria-valuemin": 0 }, h("div")), h("span")),
  (li, one) => {
    const [head, bar, note] = li.children;
    put(head.lastChild, `${number(one.used)} / ${number(one.capacity)}`);
    attr(bar, "aria-valuenow", one.used);
    attr(bar, "aria-valuemax", one.capacity);
    attr(bar, "aria-valuetext", `${one.used} of ${one.capacity}`);
    attr(bar, "class", `bar${one.share >= 1 ? " is-crit" : one.share >= 0.9 ? " is-warn" : ""}`);
    const width = `${one.used ? Math.max(1, one.share * 100) : 0}%`;
    if (bar.firstChild.style.width !== width) bar.firstChild.style.width = width;
    put(note, [one.refused ? `${number(one.refused)} refused` : "", one.evicted ? `${number(one.evicted)} evicted` : ""].filter(Boolean).join(", "));
    attr(note, "class", one.refused ? "is-warn" : "dim");
  });
}

const TONES = { "+": "is-ok", "!": "is-crit", "~": "is-warn" };
function drawEvents() {
  const events = S.events.length ? S.events : [{ key: 0, text: "Nothing has happened since this page was opened." }];
  sync($("event-list"), events, (one) => one.key, (one) => {
    if (!one.time) return h("li", {}, h("span", { class: "dim none" }, one.text));
    return h("li", {}, h("time", { datetime: one.time.toISOString() }, one.time.toTimeString().slice(0, 8)), h("i", { class: TONES[one.kind] || "dim", "aria-hidden": "true" }, one.kind), h("span", {}, one.text));
  });
}

// Nothing to see yet: what to type.
function drawStart(s) {
  const isAlone = known.size < 2;
  $("start").hidden = !isAlone;
  if (!isAlone) return;
  const option = s.native_option || list(s.natives).map((addr) => `--native ${addr}`)[0];
  const commands = option ? ["indexer", "node"].map((role) => `oc-discovery ${role} ${clean(option)}`) : [];
  sync($("start"), ["", ...commands], String, (text) => (text
    ? h("div", { class: "cmd" }, h("code", {}, text), copyButton(text, `Copy the command for an ${text.split(" ")[1]}`))
    : h("p")), (el, text) => { if (!text) put(el, s.role === "native" ? "No indexer and no node is known yet. Start them with:" : "This daemon knows no other yet."); });
}
