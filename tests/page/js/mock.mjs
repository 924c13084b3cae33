// A stand-in for a daemon's HTTP server: plays a network of any size, in the JSON of real daemons.
//
//     node mock.mjs PORT NODES INDEXERS [TOKEN]
//
// What happens by itself can be turned off (`calm`); the test makes things happen: see `Mock`.

import { createServer } from "node:http";
import { gzipSync } from "node:zlib";
import { createHash } from "node:crypto";
import { page } from "./page.mjs";

const made = await page();

const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

function idOf(text) {
  const bytes = createHash("sha512").update(text).digest();
  return "12D3KooW" + [...bytes.subarray(0, 44)].map((byte) => ALPHABET[byte % 58]).join("");
}

export class Mock {
  constructor({ nodes = 12, indexers = 2, token = null, level = "OK" } = {}) {
    Object.assign(this, { token, level, begun: Date.now(), streams: new Set(), requests: [], tally: { complete: true, asked: 1, answered: 1 }, nodes: new Map(), indexers: [], problems: [] });
    this.self = idOf("native");
    this.other = idOf("native 2");
    for (let i = 0; i < indexers; i++) this.addIndexer(`indexer ${i}`);
    const kinds = [["cam", "rtsp", 554], ["door", "http", 8080], ["meter", "mqtt", 1883], ["gate", "ssh", 22]];
    for (let i = 0; i < nodes; i++) {
      const [kind, service, port] = kinds[i % 4];
      const tags = { floor: String(i % 7), ...(i % 5 === 0 && { site: "north" }) };
      this.addNode(`${kind}-${Math.floor(i / 4) + 1}`, this.indexers.length ? this.indexers[Math.floor((i * (i + 3)) / 2) % this.indexers.length].id : this.self, { services: [{ name: service, protocol: "tcp", port }], tags });
    }
  }

  addIndexer(name) {
    const indexer = { id: idOf(name), name: null, beat: Date.now() - 4000, since: Date.now() };
    this.indexers.push(indexer);
    return indexer;
  }

  removeIndexer(id) {
    this.indexers = this.indexers.filter((one) => one.id !== id);
  }

  addNode(name, server, more = {}) {
    const node = { name, peer_id: idOf(name), state: "alive", beat: Date.now() - 3000, since: Date.now(), server, services: [], tags: {}, ...more };
    this.nodes.set(node.peer_id, node);
    this.tell({ event: "present", ...this.row(node) });
    return node;
  }

  end(id, state) {
    const node = this.nodes.get(id);
    Object.assign(node, { state, beat: Date.now() });
    this.tell({ event: state, ...this.row(node) });
  }

  move(id, server) {
    this.nodes.get(id).server = server;
  }

  row(node) {
    const is = node.state === "alive";
    return {
      name: node.name, peer_id: node.peer_id, state: node.state, last_beat_ms: Date.now() - node.beat,
      addresses: is ? [`/ip4/192.0.2.${(this.nodes.size % 250) + 1}/tcp/4820`] : [],
      services: is ? node.services : [], tags: is ? node.tags : {}, version: is ? "0.1.0" : "",
      server: is ? node.server : null,
    };
  }

  status() {
    const up = Date.now() - this.begun + 3_723_000;
    const taken = [...this.nodes.values()].filter((node) => node.server === this.self && node.state === "alive");
    const loop = (phase) => ({ runs: Math.floor((up - phase) / 30000), last_ms: (up - phase) % 30000, interval_ms: 30000, done: phase > 20000 ? 1 : 0 });
    const alive = [...this.nodes.values()].filter((node) => node.state === "alive").length;
    const table = (name, used, capacity, refused = 0, evicted = 0) => ({ name, used, capacity, refused, evicted });
    const age = (one) => Date.now() - one.beat;
    return {
      schema: 1, verdict: { state: this.level.toLowerCase(), summary: this.sentence || `native: ${this.indexers.length} indexers alive, ${alive} nodes` }, problems: this.problems,
      role: "native", peer_id: this.self, name: null, tags: {}, services: [], checks: [], version: "0.1.0", uptime_ms: up, listen: ["/ip4/192.0.2.1/tcp/4820"],
      natives: this.other ? [`/ip4/192.0.2.9/tcp/4820/p2p/${this.other}`] : [], found_natives: [], native_option: `--native /ip4/192.0.2.1/tcp/4820/p2p/${this.self}`,
      live_indexers: this.indexers.map((one) => ({ peer_id: one.id, addrs: ["/ip4/192.0.2.7/tcp/4820"], expires_in_ms: 90000 - age(one), source: one.dht ? "dht" : "heartbeat", failures: 0 })),
      known_peer_ids: this.indexers.map((one) => one.id),
      responsible_peers: taken.map((node) => ({ peer_id: node.peer_id, since_ms: Date.now() - node.since })),
      stream_records: [
        ...(!this.other ? [] : [{ peer_id: this.other, role: "native", last_seen_ms: 9000, expires_in_ms: 81000 }]),
        ...this.indexers.filter((one) => !one.dht).map((one) => ({ peer_id: one.id, role: "indexer", state: one.quiet ? "silent" : "alive", last_seen_ms: age(one), expires_in_ms: 90000 - age(one) })),
        ...taken.map((node) => ({ peer_id: node.peer_id, role: "node", state: "alive", last_seen_ms: age(node), expires_in_ms: 90000 - age(node) })),
      ],
      servers: !this.other ? [] : [{ peer_id: this.other, role: "native", addr: "192.0.2.9:4820", state: "held", expires_in_ms: 77000, last_error: null, failing_ms: null, next_try_ms: null }],
      leases: !this.other ? [] : [{ peer_id: this.other, role: "native", expires_in_ms: 77000 }],
      loops: { gc: loop(11000), offload: loop(1000), refresh: loop(21000) },
      tables: [
        table("live_indexers", this.indexers.length, 256), table("known_peer_ids", this.indexers.length + 1, 512), table("departed", 0, 64),
        table("responsible_peers", taken.length, 256), table("stream_records", this.indexers.length + taken.length + 1, 784), table("guests", 8, 8, 3), table("takeovers", 0, 16),
        table("directory", taken.length, 784), table("lost", 2, 512), table("connections", 5 + taken.length, 1536), table("handshakes", 0, 256), table("dht_records", 950, 1024, 0, 12),
        table("dht_providers", 1604, 4096), table("lookups", 0, 8), table("watches", 1, 4), table("watched", alive, 16384), table("control_clients", 0, 40),
      ],
      contested: [], troubles: [],
    };
  }

  tell(event) {
    for (const stream of this.streams) stream.write(`id: 1\ndata: ${JSON.stringify(event)}\n\n`);
  }

  listen(port = 0) {
    this.server = createServer((request, response) => this.answer(request, response));
    return new Promise((done) => this.server.listen(port, "127.0.0.1", () => {
      this.port = this.server.address().port;
      this.url = `http://127.0.0.1:${this.port}/`;
      done(this);
    }));
  }

  close() {
    this.server.closeAllConnections();
    return new Promise((done) => this.server.close(done));
  }

  answer(request, response) {
    this.requests.push(request.url);
    const { html, policy } = made;
    const head = { "cache-control": "no-store", "x-content-type-options": "nosniff" };
    if (request.url === "/") {
      response.writeHead(200, { ...head, "content-type": "text/html; charset=utf-8", "content-encoding": "gzip", "content-security-policy": policy });
      return response.end(gzipSync(html));
    }
    if (this.token && request.headers.authorization !== `Bearer ${this.token}`) {
      response.writeHead(401, { ...head, "content-type": "text/plain" });
      return response.end("give the token\n");
    }
    response.setHeader("content-type", "application/json");
    if (request.url === "/status.json") return response.end(JSON.stringify(this.status()));
    if (request.url === "/nodes.json") return response.end(JSON.stringify({ nodes: [...this.nodes.values()].map((node) => this.row(node)), ...this.tally }));
    if (request.url === "/events") {
      response.writeHead(200, { ...head, "content-type": "text/event-stream" });
      if (this.mute) {
        response.flushHeaders();
        this.streams.add(response);
        return request.on("close", () => this.streams.delete(response));
      }
      const beat = setInterval(() => response.write(":\n\n"), 15000);
      request.on("close", () => clearInterval(beat));
      response.write("retry: 3000\n\n");
      for (const node of this.nodes.values()) if (node.state === "alive") response.write(`data: ${JSON.stringify({ event: "present", ...this.row(node) })}\n\n`);
      response.write(`data: ${JSON.stringify({ event: "caught_up", blind_ms: 0, silent: [], unwatched: 0, untracked: 0 })}\n\n`);
      this.streams.add(response);
      return request.on("close", () => this.streams.delete(response));
    }
    response.writeHead(404);
    return response.end("there is nothing here\n");
  }
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const [port = "7480", nodes = "12", indexers = "2", token = null] = process.argv.slice(2);
  const mock = await new Mock({ nodes: Number(nodes), indexers: Number(indexers), token }).listen(Number(port));
  console.log(`listening on ${mock.url}`);
  setInterval(() => { for (const one of [...mock.nodes.values(), ...mock.indexers]) if (Date.now() - one.beat > 30000 && one.state !== "lost" && one.state !== "left") one.beat = Date.now(); }, 1000);
}
