// What is known, from the three sources, and what they say together. All text from other peers goes
// through `clean` and `textContent`.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const MAX_EVENTS = 50;
const GHOST_MS = 5 * 60e3;

const now = () => performance.now();
const clean = (text) => String(text ?? "").replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\u2028\u2029]/gu, "\u00b7").slice(0, 300);
const short = (id) => "…" + clean(id).slice(-8);
const number = (n) => Number(n || 0).toLocaleString("en");
const count = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;
const list = (value) => (Array.isArray(value) ? value : []);
const idOf = (addr) => /\/p2p\/(\w+)$/.exec(addr)?.[1] || "";

function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

// An element with attributes and children. A function is a listener.
function h(tag, attrs = {}, ...children) {
  const svg = /^(svg|g|circle|path|rect|text)$/.test(tag);
  const el = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) {
    if (typeof value === "function") el.addEventListener(name, value);
    else if (value !== undefined && value !== false) el.setAttribute(name, value);
  }
  el.append(...children);
  return el;
}

// Writes only what has changed, so that neither focus, selection nor layout is disturbed.
function put(el, text) {
  if (el.textContent !== text) el.textContent = text;
}
function attr(el, name, value) {
  if (el.getAttribute(name) !== String(value)) el.setAttribute(name, value);
}

// The children of `parent` become those of `items`: elements with a known key are kept.
function sync(parent, items, key, make, update) {
  const old = (parent.known ||= new Map());
  const next = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const k = key(item);
    if (next.has(k)) continue;
    const el = old.get(k) || make(item);
    next.set(k, el);
    if (el === at) at = at.nextSibling;
    else parent.insertBefore(el, at);
    update?.(el, item);
  }
  for (const [k, el] of old) if (!next.has(k)) el.remove();
  parent.known = next;
}

// The whole truth of this page. Ages become points of time on this clock when they arrive.
const S = {
  status: null,
  at: 0,
  nodes: new Map(),
  tally: null,
  listedAt: -Infinity,
  events: [],
  serial: 0,
  ghosts: new Map(),
  lost: null,
  feed: "connecting",
};

function say(kind, text) {
  S.events.unshift({ key: ++S.serial, kind, text, time: new Date() });
  S.events.length = Math.min(S.events.length, MAX_EVENTS);
}

function titled(id) {
  const name = S.nodes.get(id)?.name;
  return name ? `${name} (${short(id)})` : short(id);
}

function nodeOf(row) {
  const services = list(row.services).filter((s) => s?.name);
  return {
    id: clean(row.peer_id),
    name: clean(row.name),
    state: row.state || "alive",
    seen: now() - (row.last_beat_ms || 0),
    addresses: list(row.addresses).map(clean),
    services: services.map((s) => ({ name: clean(s.name), text: clean(`${s.name} ${s.port}/${s.protocol}`) + (s.device ? ` of ${clean(s.device)}` : "") })),
    tags: Object.entries(row.tags || {}).map(([k, v]) => clean(`${k}=${v}`)),
    version: clean(row.version),
    server: row.server || null,
  };
}

function takeNodes(rows) {
  const next = new Map();
  for (const row of rows) {
    const node = nodeOf(row);
    node.server ||= S.nodes.get(node.id)?.server || null;
    next.set(node.id, node);
  }
  S.nodes = next;
  S.listedAt = now();
}

// An event of the stream. `isNews` is false for those that are the first snapshot.
function takeEvent(event, isNews) {
  const was = S.nodes.get(event.peer_id);
  const node = nodeOf(event);
  const gone = event.event === "left" || event.event === "lost";
  if (gone && was) Object.assign(node, { addresses: was.addresses, services: was.services, tags: was.tags, version: was.version });
  if (gone) node.seen = now();
  node.server ||= was?.server || null;
  S.nodes.set(node.id, node);
  if (!isNews) return;
  const who = node.name ? `node ${node.name}` : `node ${short(node.id)}`;
  const words = { present: ["+", "is there"], changed: ["~", "has changed"], left: ["−", "left"], lost: ["!", "is lost: its lease ran out"] };
  const [kind, word] = words[event.event] || ["·", clean(event.event)];
  if (event.event !== "present" || was?.state !== "alive") say(kind, `${who} ${word}`);
}

// Takes a status, and tells what is different from the one before.
function takeStatus(status) {
  const before = S.status;
  const age = now() - S.at;
  S.status = status;
  S.at = now();
  if (!before || before.peer_id !== status.peer_id) return;
  if (status.uptime_ms < before.uptime_ms + age - (S.lost ? 1500 : 9000)) say("~", "the daemon was started again");
  const ids = (s, field) => new Set(list(s[field]).map((one) => one.peer_id));
  const [live, had] = [ids(status, "live_indexers"), ids(before, "live_indexers")];
  for (const id of live) if (!had.has(id)) { say("+", `indexer ${titled(id)} is alive`); S.ghosts.delete(id); }
  for (const id of had) if (!live.has(id)) { say("!", `indexer ${titled(id)} is gone`); S.ghosts.set(id, S.at); }
  const [taken, took] = [ids(status, "responsible_peers"), ids(before, "responsible_peers")];
  for (const id of taken) if (!took.has(id)) say("+", `this native takes node ${titled(id)} in`);
  const released = [...took].filter((id) => !taken.has(id) && S.nodes.get(id)?.state === "alive");
  for (const id of released) S.nodes.get(id).server = null;
  for (const id of released.slice(0, 3)) say("→", `node ${titled(id)} is offloaded to an indexer`);
  if (released.length > 3) say("→", `and ${released.length - 3} more nodes`);
  // A lease that moves is no event of the stream.
  S.wantNodes ||= live.size !== had.size || taken.size !== took.size || released.length > 0;
  if (level(status) !== level(before)) say(level(status) === "OK" ? "+" : "!", `${level(before)} became ${level(status)}`);
}

// The verdict in capitals, and what it says of itself after the role.
const level = (s) => clean(s.verdict?.state || "unknown").toUpperCase();

// All peers by id, each with its role, state and server, and what else is known of it.
function peers() {
  const s = S.status;
  const all = new Map();
  const add = (id, role, more) => {
    if (!id) return;
    const old = all.get(id);
    all.set(id, { id, name: "", services: [], tags: [], addresses: [], state: "alive", ...old, ...more, role: old?.role || role });
  };
  add(s.peer_id, s.role, { ...nodeOf({ ...s, addresses: s.listen }), seen: null, me: true });
  for (const one of list(s.natives)) add(idOf(one), "native", { addresses: [clean(one)], state: "known" });
  for (const one of list(s.servers)) {
    const left = one.expires_in_ms === null ? {} : { left: S.at + one.expires_in_ms, mine: true };
    add(one.peer_id, one.role, { state: clean(one.last_error || one.state), failing: one.failing_ms !== null, ...left });
  }
  for (const one of list(s.leases)) add(one.peer_id, one.role, { mine: true, left: S.at + one.expires_in_ms, state: "alive" });
  for (const one of list(s.live_indexers)) {
    const dht = one.source === "dht";
    add(one.peer_id, "indexer", { dht, addresses: list(one.addrs).map(clean), left: S.at + one.expires_in_ms, state: dht ? "DHT only" : "alive", failures: one.failures });
  }
  for (const one of list(s.stream_records)) {
    const node = one.role === "node" ? { server: s.peer_id } : {};
    add(one.peer_id, one.role, { ...node, beat: S.at - one.last_seen_ms, left: S.at + one.expires_in_ms, state: "alive", quiet: one.state === "silent", name: clean(one.name || S.nodes.get(one.peer_id)?.name) });
  }
  for (const one of list(s.responsible_peers)) add(one.peer_id, "node", { taken: true, server: s.peer_id });
  for (const [id, since] of S.ghosts)
    if (now() - since > GHOST_MS) S.ghosts.delete(id);
    else add(id, "indexer", { state: "gone", gone: true, seen: since });
  for (const node of S.nodes.values()) {
    const old = all.get(node.id);
    // A server that is known from its nodes alone.
    if (node.server && !all.has(node.server)) add(node.server, "indexer", {});
    add(node.id, "node", { ...node, server: old?.server || node.server });
  }
  return all;
}

// A peer's state in words, and whether it is worth a look.
function stateOf(peer) {
  if (peer.gone || peer.state === "left" || peer.state === "lost")
    return { text: `${peer.gone ? "gone" : peer.state} ${span(now() - peer.seen)} ago`, tone: peer.state === "left" ? "" : "is-crit" };
  if (peer.me) return { text: "this daemon", tone: "" };
  if (peer.quiet) return { text: `silent ${span(now() - peer.beat)}`, tone: "is-warn" };
  if (peer.taken) return { text: "taken in", tone: "" };
  if (peer.failures) return { text: `failed at ${count(peer.failures, "node")}`, tone: "is-warn" };
  return { text: peer.state, tone: peer.failing ? "is-warn" : "" };
}
