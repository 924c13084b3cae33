// Runs the checks whose names have WORD in them, or all: a line for each.
//
//     [PROGRAM=oc-discovery] [SHOTS=DIR] node run.mjs [WORD]

import { start } from "./browser.mjs";
import { checks as network } from "./network.mjs";
import { checks as daemons } from "./daemons.mjs";

const word = process.argv[2] || "";
const browser = await start();
let failed = 0;
for (const [name, check] of [...network, ...daemons].filter(([name]) => name.includes(word))) {
  try {
    await check(browser);
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok ${name}: ${error.constructor.name === "Failed" ? error.message : error.stack}`);
  }
}
await browser.close();
console.log(`${failed} failed`);
process.exitCode = failed ? 1 : 0;
