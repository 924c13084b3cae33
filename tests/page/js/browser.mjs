// The browser, and what every check of a page shares.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
export const DEADLINE_MS = 20_000;

export const start = () => chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: FLAGS });

export class Failed extends Error {}

export function must(holds, sentence) {
  if (!holds) throw new Failed(sentence);
}

// What `look` returns as soon as it is true of it.
export async function until(what, look, limit = DEADLINE_MS) {
  const end = Date.now() + limit;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    must(Date.now() < end, typeof what === "function" ? what() : `waited ${limit} ms for: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

// An open page, and what went wrong in it. Its end is a check of its own.
export class Tab {
  static async open(browser, url, { width = 1440, scheme = "light", motion = "no-preference", init } = {}) {
    const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme, reducedMotion: motion });
    const tab = new Tab();
    Object.assign(tab, { context, faults: [], tolerated: /^$/, origin: new URL(url).origin });
    tab.page = await context.newPage();
    tab.page.setDefaultTimeout(DEADLINE_MS);
    tab.page.on("console", (said) => { if (["error", "warning"].includes(said.type())) tab.faults.push(said.text()); });
    tab.page.on("pageerror", (error) => tab.faults.push(error.stack));
    tab.page.on("request", (request) => {
      if (!request.url().startsWith(tab.origin) && !request.url().startsWith("data:")) tab.faults.push(`asks ${request.url()}`);
    });
    if (init) await tab.page.addInitScript(init);
    await tab.page.goto(url);
    return tab;
  }

  text(selector) {
    return this.page.locator(selector).innerText();
  }

  says(selector, pattern, limit = DEADLINE_MS) {
    let seen = "";
    return until(() => `saw ${selector} say ${JSON.stringify(seen)}, expected ${pattern}`, async () => pattern.test((seen = await this.text(selector))), limit);
  }

  // Violations of WCAG 2.2 A and AA that axe-core finds, and horizontal overflow.
  async mustBeAccessible(what) {
    // The policy of the page lets no other script in, so axe comes through the debugger.
    await this.page.evaluate(AXE);
    const found = await this.page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
    const faults = found.violations.map((one) => `${one.id} at ${one.nodes.slice(0, 3).map((node) => node.target.join(" ")).join(", ")}: ${one.nodes[0].failureSummary}`);
    must(!faults.length, `${what}: ${faults.join("; ")}`);
    await this.mustFit(what);
  }

  async mustFit(what) {
    const over = await this.page.evaluate(() => {
      const wide = [...document.querySelectorAll("body *")].filter((el) => !el.closest(".sr, .skip, #picture *") && el.getBoundingClientRect().right > innerWidth + 1);
      return document.documentElement.scrollWidth > innerWidth ? wide.map((el) => el.tagName + (el.id && `#${el.id}`)).slice(0, 4).join(", ") || "the page" : "";
    });
    must(!over, `${what}: wider than the window: ${over}`);
  }

  // Tabs through the page; the focused elements, each once.
  async walk() {
    await this.page.evaluate(() => { document.activeElement?.blur(); window.scrollTo(0, 0); });
    const seen = new Set();
    for (let i = 0; i < 400; i++) {
      await this.page.keyboard.press("Tab");
      const at = await this.page.evaluate(() => {
        const el = document.activeElement;
        if (!el || el === document.body) return null;
        el.dataset.walked = "";
        const style = getComputedStyle(el);
        const mark = el.closest(".srv") ? getComputedStyle(el.querySelector(".cell")).strokeWidth !== "1.5px" : style.outlineStyle !== "none";
        return { name: `${el.tagName.toLowerCase()}#${el.id}.${el.className?.baseVal ?? el.className}`, mark };
      });
      if (!at) break;
      must(at.mark, `the focus cannot be seen at ${at.name}`);
      seen.add(at.name);
    }
    return seen;
  }

  async close() {
    const faults = this.faults.filter((fault) => !this.tolerated.test(fault));
    await this.context.close();
    must(!faults.length, `the console says: ${faults.slice(0, 3).join(" | ")}`);
  }
}
