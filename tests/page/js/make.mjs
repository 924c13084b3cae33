// Writes what the program has of the page in it: `page.html.gz` and `page.policy`, beside the parts.
//
//     node make.mjs [--check]
//
// With `--check` nothing is written, and it fails where the files do not have what the parts say.

import { readFileSync, writeFileSync } from "node:fs";
import { gunzipSync, gzipSync } from "node:zlib";
import { FOLDER, page } from "./page.mjs";

// Bytes of the page, so that it opens at once over any link.
const LIMIT = 40_000;

const { html, policy } = await page();
const size = Buffer.byteLength(html);
if (size > LIMIT) throw new Error(`the page has ${size} B, and may have ${LIMIT} B`);
const [packed, stated] = ["page.html.gz", "page.policy"].map((name) => new URL(name, FOLDER));
if (process.argv[2] === "--check") {
  // Another version of zlib packs otherwise, so what is in it is compared.
  const isSame = gunzipSync(readFileSync(packed)).toString() === html && readFileSync(stated, "utf8") === policy;
  if (!isSame) throw new Error("the page in the program is not made of these parts: run tests/page/run --make and commit the result");
} else {
  writeFileSync(packed, gzipSync(html, { level: 9 }));
  writeFileSync(stated, policy);
}
console.log(`the page has ${size} B, ${readFileSync(packed).length} B in the program`);
