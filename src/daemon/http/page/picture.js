// The picture: every server is a cell, the nodes that hold a lease with it are dots around it.
// A node keeps its place while others come and go, so that a move is seen as one.

const HUB = 15;
const CROWD = 24;
const TALL = 520;
const GAPS = [20, 16, 13, 11, 9.5, 8];
const GOLDEN = Math.PI * (3 - Math.sqrt(5));
const SHAPES = {
  native: () => h("path", { class: "hub native", d: "M0-13L11.3-6.5V6.5L0 13L-11.3 6.5V-6.5z" }),
  indexer: () => h("rect", { class: "hub indexer", x: -11, y: -11, width: 22, height: 22, rx: 5 }),
  node: () => h("circle", { class: "hub node", r: 9 }),
};
const cells = new Map();
const layers = ["edges", "servers", "dots"].map((name) => h("g", { "data-layer": name }));
$("picture").append(...layers);

// The cells with their nodes, natives first.
function gather(all) {
  const servers = new Map();
  const cell = (id) => {
    if (!servers.has(id)) servers.set(id, { id, peer: all.get(id), nodes: [] });
    return servers.get(id);
  };
  const rank = (peer) => (peer.role === "native" ? 0 : 1);
  const ids = [...all.values()].filter((peer) => peer.role !== "node").sort((a, b) => rank(a) - rank(b) || (b.me ? 1 : 0) - (a.me ? 1 : 0) || (a.id < b.id ? -1 : 1));
  for (const peer of ids) cell(peer.id);
  const indexers = ids.filter((peer) => peer.role === "indexer" && !peer.gone);
  let unplaced = 0;
  for (const peer of all.values()) {
    if (peer.role !== "node" || peer.state === "left") continue;
    if (peer.state === "lost" && !(peer.server && now() - peer.seen < GHOST_MS)) continue;
    const own = peer.me && list(S.status.leases).map((lease) => lease.peer_id).find((id) => servers.has(id));
    const id = own || peer.server || (indexers.length === 1 ? indexers[0].id : null);
    if (id && all.has(id)) cell(id).nodes.push(peer);
    else unplaced += peer.state !== "lost" && cell("?").nodes.push(peer) > 0;
  }
  if (unplaced) servers.get("?").peer = { id: "?", role: "indexer", state: "lease with a server that is not known here", name: "" };
  return [...servers.values()].filter((one) => one.peer);
}

// Gives each node of a cell a place number that it keeps.
function seat(cell) {
  const old = cells.get(cell.id)?.seats || new Map();
  const seats = new Map();
  const used = new Set();
  const fresh = [];
  for (const node of cell.nodes) {
    const at = old.get(node.id);
    if (at === undefined || at >= cell.nodes.length + 12) fresh.push(node.id);
    else { seats.set(node.id, at); used.add(at); }
  }
  let free = 0;
  for (const id of fresh) {
    while (used.has(free)) free++;
    used.add(free);
    seats.set(id, free);
  }
  cell.seats = seats;
  const most = used.size ? Math.max(...used) + 1 : 0;
  // Steps, so that a crowd does not move when one more comes.
  cell.size = most <= 14 ? most : 1.12 ** Math.ceil(Math.log(most) / Math.log(1.12));
}

// Sizes and places of all cells for a width, with a gap from node to node, in px. Returns the height.
function place(found, width, gap) {
  const total = found.reduce((sum, cell) => sum + cell.nodes.length, 0);
  const isCrowd = found.length > CROWD;
  for (const cell of found) {
    cell.gap = gap;
    cell.isDense = total > 300;
    cell.isNamed = total <= 60 && cell.size > 0 && cell.size <= 14;
    cell.dot = cell.isNamed ? 6 : Math.min(6.5, gap * 0.36);
    cell.radius = HUB + 11;
    cell.label = cell.isNamed ? Math.max(28, Math.min(104, width / 2 - 92)) : 0;
    if (cell.isNamed) cell.radius = Math.max(58, cell.size * 7.5) + 14;
    else if (cell.size) cell.radius = 0.525 * gap * Math.sqrt(cell.size + seatsInHub(gap)) + gap;
    cell.w = Math.max(2 * (cell.radius + cell.label), isCrowd ? 0 : 118) + 12;
    cell.h = 2 * cell.radius + (isCrowd ? 12 : cell.isNamed ? 64 : 50);
    cell.isLabelled = !isCrowd;
  }
  let top = 14;
  for (const tier of [found.filter((cell) => cell.peer.role === "native"), found.filter((cell) => cell.peer.role !== "native")]) {
    let row = [];
    const flush = () => {
      const used = row.reduce((sum, cell) => sum + cell.w, 0);
      const spare = Math.min(70, (width - used) / (row.length + 1));
      let x = (width - used - spare * (row.length - 1)) / 2;
      const height = Math.max(...row.map((cell) => cell.h));
      for (const cell of row) {
        cell.x = x + cell.w / 2;
        cell.y = top + cell.radius + (cell.isNamed ? 8 : 0) + (height - cell.h) / 2;
        x += cell.w + spare;
      }
      top += height + 10;
      row = [];
    };
    for (const cell of tier) {
      if (row.length && row.reduce((sum, one) => sum + one.w, cell.w) > width - 8) flush();
      row.push(cell);
    }
    if (row.length) flush();
    if (tier.length) top += 8;
  }
  return top - 4;
}

const seatsInHub = (gap) => ((HUB + 8) / (0.525 * gap)) ** 2;

function seatAt(cell, at) {
  if (cell.isNamed) {
    const angle = (at / cell.size) * 2 * Math.PI - Math.PI / 2 + (cell.size < 3 ? Math.PI / 2 : 0);
    return [Math.cos(angle) * (cell.radius - 14), Math.sin(angle) * (cell.radius - 14)];
  }
  const r = 0.525 * cell.gap * Math.sqrt(at + seatsInHub(cell.gap));
  return [Math.cos(at * GOLDEN) * r, Math.sin(at * GOLDEN) * r];
}

function drawPicture(all) {
  const svg = $("picture");
  const found = gather(all);
  const width = Math.max(280, svg.clientWidth || 280);
  found.forEach(seat);
  // As large as fits.
  const height = GAPS.reduce((height, gap) => (height > TALL ? Math.ceil(place(found, width, gap)) : height), Infinity);
  attr(svg, "viewBox", `0 0 ${width} ${height}`);
  attr(svg, "height", height);
  const [edges, servers, points] = layers;
  sync(servers, found, (cell) => cell.id, makeServer, updateServer);
  sync(edges, edgesOf(found), (edge) => edge.key, () => h("path"), (el, edge) => {
    attr(el, "class", `edge${edge.dht ? " dht" : ""}${found.length > CROWD ? " many" : ""}${edge.gone ? " gone" : ""}`);
    attr(el, "d", edge.d);
  });
  const places = [];
  for (const cell of found) {
    for (const node of cell.nodes) {
      const [dx, dy] = seatAt(cell, cell.seats.get(node.id));
      places.push({ node, cell, dx, dy });
    }
    cells.set(cell.id, cell);
  }
  for (const id of cells.keys()) if (!found.some((cell) => cell.id === id)) cells.delete(id);
  sync(points, places, (dot) => dot.node.id, makeDot, updateDot);
  if (points.fresh) {
    // A new dot starts at its server, and goes to its place in the next frame.
    points.fresh = false;
    requestAnimationFrame(() => { for (const dot of places) updateDot(points.known.get(dot.node.id), dot); });
  }
  put($("map-sum"), summary(found));
}

function summary(found) {
  const of = (role) => found.filter((cell) => cell.peer.role === role && !cell.peer.gone && cell.id !== "?").length;
  const held = found.flatMap((cell) => cell.nodes).filter((node) => node.state !== "lost");
  const taken = found.filter((cell) => cell.peer.role === "native").reduce((sum, cell) => sum + cell.nodes.length, 0);
  return [count(of("native"), "native"), count(of("indexer"), "indexer"), count(held.length, "node")].join(" · ") + (taken ? ` · ${number(taken)} taken in` : "");
}

function makeServer(cell) {
  const choose = () => filterBy(cell.id);
  return h("g", { class: "srv", tabindex: 0, role: "button", click: choose, keydown: (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); }
  } },
    h("circle", { class: "cell" }), h("path", { class: "spokes" }), h("circle", { class: "track", r: 19 }),
    h("circle", { class: "rest", r: 19, pathLength: 100, transform: "rotate(-90)" }),
    (SHAPES[cell.peer.role] || SHAPES.indexer)(), h("text", { class: "name" }), h("text", { class: "state" }));
}

function updateServer(el, cell) {
  const { peer } = cell;
  const state = stateOf(peer);
  const [circle, spokes, track, rest, , name, note] = el.children;
  attr(el, "class", `srv is-${peer.role}${peer.gone ? " gone" : ""}${peer.quiet ? " quiet" : ""}${filters.at === cell.id ? " on" : ""}`);
  attr(el, "transform", `translate(${cell.x.toFixed(1)} ${cell.y.toFixed(1)})`);
  attr(circle, "r", (cell.isNamed ? cell.radius - 14 : cell.radius).toFixed(1));
  attr(spokes, "d", cell.isNamed ? [...cell.seats.values()].map((at) => `M0 0L${seatAt(cell, at).map((n) => n.toFixed(1))}`).join("") : "");
  const isBeating = peer.beat !== undefined && !peer.gone;
  const part = isBeating ? Math.max(0, (peer.left - now()) / (peer.left - peer.beat)) : 0;
  attr(track, "visibility", isBeating ? "visible" : "hidden");
  attr(rest, "stroke-dasharray", `${(100 * part).toFixed(1)} 200`);
  const title = cell.id === "?" ? "indexers" : peer.name || short(peer.id);
  const nodes = count(cell.nodes.filter((node) => node.state !== "lost").length, "node");
  const what = peer.me ? "this daemon" : state.text === "alive" ? "" : state.text;
  const more = [cell.id === "?" ? "not told which" : what, cell.nodes.length || peer.role === "indexer" ? nodes : ""].filter(Boolean).join(" · ");
  put(name, cell.isLabelled ? title : "");
  put(note, cell.isLabelled && more ? ` ${more}` : "");
  const below = cell.radius + (cell.isNamed ? 30 : 17);
  attr(name, "y", below.toFixed(1));
  attr(note, "y", (below + 15).toFixed(1));
  attr(el, "aria-label", `${title} ${more}: ${peer.role}, ${state.text}; show it in the list`);
  attr(el, "aria-pressed", filters.at === cell.id);
}

// Leases between servers: natives above, indexers below.
function edgesOf(found) {
  const me = found.find((cell) => cell.peer.me);
  const edges = [];
  const link = (a, b, more) => {
    const [up, down] = a.y <= b.y ? [a, b] : [b, a];
    const bend = Math.max(24, (down.y - up.y) / 2);
    const d = Math.abs(a.y - b.y) < 8 ? `M${a.x} ${a.y}H${b.x}` : `M${up.x} ${up.y}C${up.x} ${up.y + bend} ${down.x} ${down.y - bend} ${down.x} ${down.y}`;
    edges.push({ key: a.id + b.id, d, ...more });
  };
  if (!me) return edges;
  for (const cell of found) {
    const { peer } = cell;
    if (cell === me || cell.id === "?") continue;
    const isLease = peer.beat !== undefined || peer.mine || (me.peer.role === "native" && peer.role === "indexer");
    if (isLease) link(me, cell, { dht: peer.dht && peer.beat === undefined, gone: peer.gone });
  }
  return edges;
}

function makeDot(dot) {
  layers[2].fresh = true;
  const el = h("g", { class: "dot", "data-id": dot.node.id }, h("circle", { class: "node" }));
  el.style.transform = `translate(${dot.cell.x.toFixed(1)}px, ${dot.cell.y.toFixed(1)}px)`;
  el.style.opacity = 0;
  el.isFresh = true;
  return el;
}

function updateDot(el, { node, cell, dx, dy }) {
  if (el.isFresh) { el.isFresh = false; return; }
  const transform = `translate(${(cell.x + dx).toFixed(1)}px, ${(cell.y + dy).toFixed(1)}px)`;
  // Hundreds at once just take their places; who changes the server is seen to move.
  if (el.place !== transform) {
    el.moving = !cell.isDense || el.server !== cell.id ? " moving" : "";
    Object.assign(el, { place: transform, server: cell.id });
    attr(el, "class", `dot${el.moving}`);
    Object.assign(el.style, { transform, opacity: 1 });
  }
  const tone = node.state === "lost" ? " lost" : node.quiet ? " quiet" : cell.peer.role === "native" ? " taken" : "";
  attr(el.firstChild, "class", `node${tone}${node.me ? " me" : ""}`);
  attr(el.firstChild, "r", cell.dot.toFixed(1));
  if (!cell.isNamed) return el.children[1]?.remove();
  const text = el.children[1] || el.appendChild(h("text"));
  const side = Math.abs(dx) < 6 ? "mid" : dx < 0 ? "west" : "east";
  attr(el, "class", `dot${el.moving} ${side}`);
  const long = node.name || short(node.id);
  const fits = Math.floor(cell.label / 6.6);
  put(text, long.length > fits ? long.slice(0, Math.max(3, fits - 1)) + "…" : long);
  attr(text, "x", side === "mid" ? 0 : side === "west" ? -11 : 11);
  attr(text, "y", side !== "mid" ? 0 : dy < 0 ? -14 : 15);
}

// What is under the pointer.
$("picture").addEventListener("pointermove", (event) => {
  const id = event.target.closest(".dot")?.dataset.id;
  const tip = $("tip");
  const node = id && known.get(id);
  tip.hidden = !node;
  if (!node) return;
  const box = $("map").getBoundingClientRect();
  put(tip, [node.name || "(no name)", short(id), stateOf(node).text].join("\n"));
  const x = event.clientX - box.left;
  tip.style.left = `${Math.min(x + 12, box.width - 150)}px`;
  tip.style.top = `${event.clientY - box.top + 14}px`;
});
$("picture").addEventListener("pointerleave", () => { $("tip").hidden = true; });
$("picture").addEventListener("click", (event) => {
  const id = event.target.closest(".dot")?.dataset.id;
  if (id) showOne(id);
});
