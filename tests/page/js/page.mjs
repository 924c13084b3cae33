// Makes the page: one file out of its parts, without what only people need, and its content security
// policy, which names the hashes of the style and of the script.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { transform } from "esbuild";

export const FOLDER = new URL("../../../src/daemon/http/page/", import.meta.url);
const SCRIPTS = ["state.js", "wire.js", "picture.js", "panels.js", "main.js"];

const read = (name) => readFileSync(new URL(name, FOLDER), "utf8");
const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

async function small(text, loader) {
  const { code } = await transform(text, { loader, minify: true, charset: "utf8", target: "es2022", legalComments: "none" });
  return code.trim();
}

// The page and its policy.
export async function page() {
  const style = await small(read("page.css"), "css");
  const script = await small(`"use strict";(()=>{${SCRIPTS.map(read).join("\n")}})()`, "js");
  const frame = read("page.html").split("\n").map((line) => line.trim()).join("\n");
  const html = frame.replace("/* page.css */", () => style).replace("/* page.js */", () => script);
  const policy = `default-src 'none'; style-src ${hash(style)}; script-src ${hash(script)}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
  return { html, policy };
}
