// The page against the stand-in: sizes, schemes, the keyboard, and what a network can do to it.

import { Mock } from "./mock.mjs";
import { Tab, must, until } from "./browser.mjs";

const PROBLEMS = [
  { code: "handshake-refused", severity: "warning", what: "203.0.113.7 was refused in the handshake", hint: "Is the key the same on both? Compare the file that --psk names.", since_ms: 240_000, count: 14 },
  { code: "data-dir-gone", severity: "critical", what: "The data directory /var/lib/oc-discovery/native has gone", hint: "Mount it again, then: systemctl restart oc-discovery@native", since_ms: 9000, count: 1 },
];

async function withTab(browser, network, how, check) {
  const mock = await new Mock(network).listen();
  network.prepare?.(mock);
  const tab = await Tab.open(browser, mock.url, how);
  try {
    if (!network.token) await tab.says("#count", /\d peer/);
    await check(tab, mock);
    await tab.close();
  } finally {
    await tab.context.close();
    await mock.close();
  }
}

const dots = (tab) => tab.page.locator("#picture .dot").count();

// Each size, scheme and amount.
const VIEWS = [];
for (const scheme of ["light", "dark"])
  for (const width of [360, 768, 1440])
    for (const nodes of [0, 12, 1000]) VIEWS.push({ scheme, width, nodes });

export const checks = VIEWS.map(({ scheme, width, nodes }) => [
  `${nodes} nodes at ${width} px, ${scheme}`,
  (browser) => withTab(browser, { nodes, indexers: nodes ? 3 : 0, prepare: (mock) => { if (nodes === 12) Object.assign(mock, { problems: PROBLEMS, level: "CRITICAL" }); } }, { width, scheme }, async (tab) => {
    await until("every node has its dot", async () => (await dots(tab)) === nodes);
    if (nodes === 12) {
      await tab.page.getByRole("button", { name: "cam-1", exact: true }).click();
      await tab.says("#list .more", /12D3KooW/);
      must((await tab.page.locator("#problems li").first().innerText()).startsWith("critical"), "the critical problem is first");
    }
    const [table, name] = await tab.page.evaluate(() => [document.querySelector("#list").offsetWidth, document.querySelector("#list th").offsetWidth]);
    must(!table || name > table / 5, `the names have ${name} of ${table} px`);
    await tab.page.waitForTimeout(800);
    await tab.mustBeAccessible("the page");
    await shot(tab, `${nodes}-${width}-${scheme}`);
  }),
]);

// For people to look at.
async function shot(tab, name) {
  if (process.env.SHOTS) await tab.page.screenshot({ path: `${process.env.SHOTS}/${name}.png`, fullPage: (await tab.page.evaluate(() => document.body.scrollHeight)) < 4000 });
}

function check(name, network, how, act) {
  checks.push([name, (browser) => withTab(browser, network, how, act)]);
}

// Text and background in every pair that occurs need 4.5, what is drawn needs 3 (WCAG 1.4.3, 1.4.11).
for (const scheme of ["light", "dark"])
  check(`contrast, ${scheme}`, {}, { scheme }, async (tab) => {
    const ratios = await tab.page.evaluate(() => {
      const probe = document.createElement("i");
      document.body.append(probe);
      const light = (name) => {
        probe.style.color = `var(--${name})`;
        const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const pairs = [];
      for (const ground of ["bg", "card", "well"]) {
        for (const text of ["ink", "dim", "ok", "warn", "crit"]) pairs.push([text, ground, 4.5]);
        for (const drawn of ["native", "indexer", "node", "edge", "warn", "crit"]) pairs.push([drawn, ground, 3]);
      }
      pairs.push(["card", "crit", 4.5], ["card", "ink", 4.5]);
      return pairs.map(([a, b, least]) => {
        const [x, y] = [light(a), light(b)].sort((m, n) => n - m);
        return { pair: `${a} on ${b}`, ratio: (x + 0.05) / (y + 0.05), least };
      });
    });
    const low = ratios.filter((one) => !(one.ratio >= one.least));
    must(!low.length, low.map((one) => `${one.pair}: ${one.ratio.toFixed(2)} of ${one.least}`).join(", "));
  });

check("the keyboard reaches everything", {}, {}, async (tab) => {
  const expected = await tab.page.evaluate(() => [...document.querySelectorAll("a, button, input, select, [tabindex='0']")].filter((el) => el.checkVisibility() || el.className === "skip").length);
  await tab.walk();
  const walked = await tab.page.locator("[data-walked]").count();
  must(walked >= expected, `Tab reaches ${walked} of ${expected}`);
  await tab.page.locator("#picture .srv").last().focus();
  await tab.page.keyboard.press("Enter");
  await tab.says("#count", / of /);
  await tab.page.locator("#filter button").focus();
  await tab.page.keyboard.press("Space");
  await tab.says("#count", /^\d+ peers/);
  const node = tab.page.getByRole("button", { name: "door-1", exact: true });
  await node.focus();
  await tab.page.keyboard.press("Enter");
  await until("Enter shows the whole id", async () => (await node.getAttribute("aria-expanded")) === "true");
  await tab.page.locator("#theme").focus();
  await tab.page.keyboard.press("Enter");
  await tab.page.keyboard.press("Enter");
  must((await tab.page.evaluate(() => getComputedStyle(document.documentElement).colorScheme)) === "dark", "the scheme can be chosen");
  await tab.mustBeAccessible("chosen to be dark");
});

check("filters by name, role, service and tag", { nodes: 40 }, {}, async (tab) => {
  const counts = async (act, expected) => { await act(); await tab.says("#count", new RegExp(`^${expected} of`)); await tab.page.locator("#filter button").click(); };
  await counts(() => tab.page.fill("#f-name", "CAM-1"), 2);
  await counts(() => tab.page.selectOption("#f-role", "native"), 2);
  await counts(() => tab.page.selectOption("#f-service", "mqtt"), 10);
  await counts(() => tab.page.selectOption("#f-tag", "site=north"), 8);
  await tab.page.fill("#f-name", "no such node");
  await tab.says("#none", /No peer fits/);
});

check("a node comes, moves, leaves and is lost, in its place in the picture", {}, {}, async (tab, mock) => {
  const [one, two] = mock.indexers;
  const node = mock.addNode("new-1", mock.self);
  await tab.says("#event-list", /node new-1 is there/);
  await tab.says("#map-sum", /1 taken in/);
  await tab.says("#event-list", /takes node new-1/);
  mock.move(node.peer_id, one.id);
  await tab.says("#event-list", /new-1 .*is offloaded to an indexer/);
  const label = (id) => tab.page.locator(`#picture .srv[aria-label*="${id.slice(-8)}"]`).getAttribute("aria-label");
  const before = Number(/(\d+) node/.exec(await label(two.id))[1]);
  mock.move(node.peer_id, two.id);
  mock.tell({ event: "changed", ...mock.row(node) });
  await until("it is with the other indexer", async () => (await label(two.id)).includes(`${before + 1} node`));
  mock.end(node.peer_id, "lost");
  await tab.says("#gone", /new-1.*lost/);
  must((await tab.page.locator("#picture .node.lost").count()) === 1, "a lost node is drawn as one");
  mock.end([...mock.nodes.keys()][0], "left");
  await tab.says("#gone", /cam-1.*left/);
  mock.removeIndexer(one.id);
  await tab.says("#event-list", /indexer .* is gone/);
  must((await tab.page.locator("#picture .srv.gone").count()) === 1, "a vanished indexer is drawn as one");
  await tab.mustBeAccessible("with the vanished");
});

check("fifty events, and no more", {}, {}, async (tab, mock) => {
  for (let i = 0; i < 60; i++) mock.addNode(`burst-${i}`, mock.indexers[i % 2].id);
  await tab.says("#event-list", /burst-59 /);
  must((await tab.page.locator("#event-list li").count()) === 50, "fifty are kept");
});

check("400 nodes that come to 1,000 are drawn", { nodes: 1000, indexers: 4 }, {}, async (tab, mock) => {
  const debug = await tab.context.newCDPSession(tab.page);
  await debug.send("Performance.enable", { timeDomain: "threadTicks" });
  const busy = async () => (await debug.send("Performance.getMetrics")).metrics.find((one) => one.name === "TaskDuration").value;
  const [before, begun] = [await busy(), Date.now()];
  for (let i = 0; i < 40; i++) {
    for (let j = 0; j < 10; j++) mock.addNode(`more-${i}-${j}`, mock.indexers[j % 4].id);
    await tab.page.waitForTimeout(100);
  }
  const share = (await busy() - before) / ((Date.now() - begun) / 1000);
  console.log(`# ${(100 * share).toFixed(0)} % of one core while 100 nodes a second come to 1,000`);
  await until("all are drawn", async () => (await dots(tab)) === 1400);
});

check("no motion where none is wanted", {}, { motion: "reduce" }, async (tab) => {
  const moves = await tab.page.evaluate(() => [...document.querySelectorAll("*")].filter((el) => parseFloat(getComputedStyle(el).transitionDuration) > 0 || getComputedStyle(el).animationName !== "none").length);
  must(moves === 0, `${moves} elements move`);
});

check("text of other peers stays text", {}, {}, async (tab, mock) => {
  mock.addNode("<img src=x onerror=alert(1)>", mock.self, { tags: { "\u202eevil": "\u0007x" }, services: [{ name: "<b>", protocol: "tcp", port: 1 }] });
  await tab.says("#list", /<img src=x onerror=alert\(1\)>/);
  await tab.says("#list", /·evil=·x/);
  must((await tab.page.locator("main img").count()) === 0, "no element comes from a name");
});

check("a lost connection is said, and the page goes on when it is back", {}, { width: 360, scheme: "dark" }, async (tab, mock) => {
  tab.tolerated = /ERR_|Failed to load resource/;
  const { port } = mock;
  await mock.close();
  await tab.says("#link", /Connection lost.*What is shown is old/s);
  await tab.mustBeAccessible("without a connection");
  await shot(tab, "lost-360-dark");
  mock.addNode("meanwhile", mock.self);
  await mock.listen(port);
  await tab.says("#link", /^Connected$/);
  await tab.says("#list", /meanwhile/);
  await tab.says("#event-list", /is back after/);
  await until("the events are streamed again", () => mock.streams.size === 1);
});

check("a stream of events that hangs is given up and begun again", {}, {}, async (tab, mock) => {
  mock.mute = true;
  await tab.page.clock.install();
  await tab.page.reload();
  await until("the stream hangs", () => mock.streams.size === 1);
  await tab.says("#feed", /live/);
  await tab.page.clock.fastForward(39000);
  await tab.says("#feed", /live/);
  mock.mute = false;
  await tab.page.clock.fastForward(2000);
  await tab.says("#feed", /nothing came for 40 s; next try in/);
  await tab.page.clock.fastForward(2000);
  await tab.says("#feed", /live/);
  await until("one stream is left", () => mock.streams.size === 1);
});

check("a list that may lack nodes is said to be incomplete", {}, {}, async (tab, mock) => {
  mock.tally = { complete: false, asked: 3, answered: 2 };
  mock.addNode("another", mock.self);
  await tab.says("#count", /17 peers; incomplete: 2 of 3 servers answered/);
  mock.tally = { complete: true, asked: 3, answered: 3 };
  mock.addNode("more", mock.self);
  await tab.says("#count", /18 peers$/);
});

check("a token is asked for, and kept in this tab only", { token: "sesame-sesame-sesame" }, { width: 360 }, async (tab) => {
  tab.tolerated = /401/;
  await tab.says("#ask", /asks for its token/);
  await tab.mustBeAccessible("the form");
  await shot(tab, "token-360-light");
  await tab.page.keyboard.type("wrong");
  await tab.page.keyboard.press("Enter");
  await tab.says("#ask", /not the one/);
  await tab.page.fill("#token", "sesame-sesame-sesame");
  await tab.page.keyboard.press("Enter");
  await tab.says("#count", /16 peers/);
  must((await tab.page.evaluate(() => JSON.stringify(localStorage) + document.cookie)) === "{}", "nothing else keeps it");
  await tab.page.reload();
  await tab.says("#count", /16 peers/);
});
