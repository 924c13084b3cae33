// The page against real daemons on loopback: what an operator sees happen, in both schemes and on a
// phone, at the same time.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DEADLINE_MS, Tab, must, until } from "./browser.mjs";

const PROGRAM = process.env.PROGRAM;
const FAST = ["--offload-interval", "1s", "--refresh-interval", "1s", "--gc-interval", "1s", "--lease", "6s"];

// Processes of one check, in a folder of their own. They end with it.
class World {
  constructor() {
    this.dir = mkdtempSync(join(tmpdir(), "oc-page-"));
    this.daemons = [];
  }

  async start(role, name, ...options) {
    const daemon = spawn(PROGRAM, [role, "--data-dir", join(this.dir, name), "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--log", "warn", ...options], { stdio: ["ignore", "pipe", "ignore"] });
    this.daemons.push(daemon);
    daemon.ended = new Promise((done) => daemon.once("exit", done));
    const lines = [];
    createInterface({ input: daemon.stdout }).on("line", (line) => lines.push(line));
    await until(`${name} is ready`, () => lines.includes("ready"));
    daemon.addr = lines.find((line) => line.startsWith("listening on ")).split(" ").at(-1);
    daemon.id = daemon.addr.split("/p2p/")[1];
    daemon.url = /http:\S+/.exec(lines.join("\n"))?.[0];
    return daemon;
  }

  async end() {
    for (const daemon of this.daemons) daemon.kill("SIGKILL");
    await Promise.all(this.daemons.map((daemon) => daemon.ended));
    rmSync(this.dir, { recursive: true });
  }
}

const head = (url, headers) => new Promise((done, failed) => {
  get(url, { headers }, (answer) => { answer.resume(); done({ status: answer.statusCode, ...answer.headers }); }).on("error", failed);
});

async function inWorld(check) {
  const world = new World();
  try {
    await check(world);
  } finally {
    await world.end();
  }
}

async function life(browser, world) {
  const native = await world.start("native", "native", "--http", "127.0.0.1:0", ...FAST);
  const ways = [{ scheme: "light" }, { scheme: "dark" }, { scheme: "light", width: 360 }];
  const tabs = await Promise.all(ways.map((way) => Tab.open(browser, native.url, way)));
  const all = (check) => Promise.all(tabs.map(check));
  const shot = (name) => process.env.SHOTS && all((tab, i) => tab.page.screenshot({ path: `${process.env.SHOTS}/real-${name}-${i}.png`, fullPage: true }));
  try {
    await all((tab) => tab.says("#start", /oc-discovery node --native/));
    await world.start("node", "cam-1", "--name", "cam-1", "--service", "rtsp=554", "--tag", "floor=1", "--native", native.addr, ...FAST.slice(-2));
    await all(async (tab) => {
      await tab.says("#event-list", /node cam-1 is there/);
      // From a status, as its end will be: one that comes and goes between two of them is not told.
      await tab.says("#event-list", /this native takes node .* in/);
      await tab.says("#map-sum", /1 native · 0 indexers · 1 node · 1 taken in/);
      await tab.says("#list", /cam-1/);
    });
    await shot("taken-in");
    const indexer = await world.start("indexer", "indexer", "--native", native.addr, ...FAST.slice(-2));
    await all(async (tab) => {
      await tab.says("#event-list", /indexer .* is alive/);
      await tab.says("#event-list", /is offloaded to an indexer/);
      await tab.says("#map-sum", /1 native · 1 indexer · 1 node$/);
      const cell = `#picture .srv[aria-label*="${indexer.id.slice(-8)}"]`;
      await until("the node is with the indexer", async () => (await tab.page.locator(cell).getAttribute("aria-label")).includes("1 node"));
      await tab.says("#loop-list", /Offload[^]*ran \d+ s ago/);
      await tab.mustBeAccessible("after offload");
    });
    await shot("offloaded");
    indexer.kill("SIGKILL");
    await all(async (tab) => {
      // Its record in the DHT may keep it known for longer than its lease.
      await tab.says("#event-list", /indexer .* is gone/, 3 * DEADLINE_MS);
      // A native that has just started lacks indexers in the first minute: that is no fault yet.
      await tab.says("#level", /STARTING|DEGRADED|CRITICAL/);
      await tab.says("#sentence", /no indexer is alive/);
      await until("it is drawn as gone", async () => (await tab.page.locator("#picture .srv.gone").count()) === 1);
      await tab.says("#map-sum", /1 taken in/);
      await tab.mustBeAccessible("after the indexer died");
    });
    await shot("indexer-died");
    for (const tab of tabs) await tab.close();
  } finally {
    await Promise.all(tabs.map((tab) => tab.context.close()));
  }
}

async function restart(browser, world) {
  const native = await world.start("native", "native", "--http", "127.0.0.1:0", ...FAST);
  const at = new URL(native.url).host;
  const tab = await Tab.open(browser, native.url);
  tab.tolerated = /ERR_|Failed to load resource/;
  await tab.says("#link", /^Connected$/);
  // A start a moment after the first one could not be told from a slow answer.
  await until("it has run for 6 s", async () => (await (await fetch(new URL("/status.json", native.url))).json()).uptime_ms > 6000);
  native.kill("SIGKILL");
  await native.ended;
  await tab.says("#link", /Connection lost/);
  await world.start("native", "native", "--http", at, ...FAST);
  await tab.says("#link", /^Connected$/);
  await tab.says("#event-list", /the daemon was started again/);
  await tab.close();
}

async function token(browser, world) {
  const file = join(world.dir, "token");
  writeFileSync(file, "correct-horse-battery\n", { mode: 0o600 });
  const native = await world.start("native", "native", "--http", "127.0.0.1:0", "--http-token", file);
  const tab = await Tab.open(browser, native.url, { scheme: "dark" });
  tab.tolerated = /401/;
  await tab.says("#ask", /asks for its token/);
  await tab.page.fill("#token", "correct-horse-battery");
  await tab.page.keyboard.press("Enter");
  await tab.says("#count", /1 peer/);
  await tab.says("#feed", /live/);
  await tab.close();
}

async function heads(browser, world) {
  const native = await world.start("native", "native", "--http", "127.0.0.1:0");
  const page = await head(native.url, { "accept-encoding": "gzip, br" });
  must(page["content-encoding"] === "gzip" && page["content-type"].startsWith("text/html"), "a browser gets the page, compressed");
  must(/script-src 'sha256-/.test(page["content-security-policy"]), "its policy names the script");
  const plain = await head(native.url, {});
  must(plain.status === 200 && plain["content-type"].startsWith("text/plain"), "another client gets a text");
}

export const checks = PROGRAM
  ? [
      ["real daemons: a node is taken in, offloaded, and its indexer dies", life],
      ["real daemons: the page goes on after a restart", restart],
      ["real daemons: a token", token],
      ["real daemons: the page is sent compressed, with its policy", heads],
    ].map(([name, check]) => [name, (browser) => inWorld((world) => check(browser, world))])
  : [];
