// The daemon: its status and its nodes are asked for, its events are streamed. Everything comes
// from the origin of this page.

const STATUS_MS = 3000;
const NODES_MS = 20000;
const NODES_GAP_MS = 2500;
const PATIENCE_MS = 8000;
// The daemon says something every 15 s, if only a comment.
const SILENCE_MS = 40000;

let token = null;
try { token = sessionStorage.getItem("oc-token"); } catch {}

class Refused extends Error {}

async function get(path, signal) {
  const shown = token;
  const headers = shown ? { authorization: `Bearer ${shown}` } : {};
  const answer = await fetch(path, { headers, signal, cache: "no-store", credentials: "omit" });
  if (answer.status === 401) {
    // Not if another was given meanwhile.
    if (shown === token) askForToken();
    throw new Refused();
  }
  if (!answer.ok) {
    throw new Error(clean(await answer.text()).trim() || `answer ${answer.status}`);
  }
  return answer;
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const visible = () => document.visibilityState === "visible" || new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));

function askForToken() {
  if ($("ask").hidden) {
    $("ask-why").textContent = token ? "That token is not the one that this daemon has." : "It is in the file that --http-token names.";
    $("ask").hidden = false;
    document.body.classList.add("asking");
    $("token").focus();
  }
  token = null;
  try { sessionStorage.removeItem("oc-token"); } catch {}
}

// Resolves when a token was given, at once if none is asked for.
async function allowed() {
  if ($("ask").hidden) return;
  await new Promise((done) => $("ask").addEventListener("oc-token", done, { once: true }));
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  try { sessionStorage.setItem("oc-token", token); } catch {}
  $("ask").hidden = true;
  document.body.classList.remove("asking");
  $("ask").dispatchEvent(new Event("oc-token"));
});

// Runs `work` again and again, `pause` after each success, and later and later after failures.
async function keep(work, pause) {
  for (let failures = 0; ; ) {
    await allowed();
    await visible();
    try {
      await work();
      failures = 0;
      await pause();
    } catch (error) {
      if (error instanceof Refused) continue;
      const wait = Math.min(1000 * 2 ** failures++, 10000);
      work.failed?.(error, wait);
      await Promise.race([sleep(wait), new Promise((done) => { S.woken = done; })]);
    }
  }
}

async function status() {
  takeStatus(await (await get("/status.json", AbortSignal.timeout(PATIENCE_MS))).json());
  if (S.lost) {
    say("+", `the connection to the daemon is back after ${span(now() - S.lost.since)}`);
    S.lost = null;
    S.wantNodes = true;
    S.woken?.();
  }
  if (S.wantNodes) nodesDue();
  draw();
}
status.failed = (error, wait) => {
  if (!S.lost) say("!", "the connection to the daemon is lost");
  S.lost = { since: S.lost?.since ?? now(), until: now() + wait };
  draw();
};

async function nodes() {
  S.tally = await (await get("/nodes.json", AbortSignal.timeout(30000))).json();
  takeNodes(S.tally.nodes);
  draw();
}
nodes.failed = (error) => { S.listError = error.message; };

async function untilStatusIsDue() {
  await sleep(500);
  await Promise.race([sleep(STATUS_MS), new Promise((done) => { statusDue = done; })]);
}

// Resolves when a listing is due: soon after something happened, else now and then.
let nodesDue = () => {};
let statusDue = () => {};
async function untilNodesAreDue() {
  S.listError = null;
  await sleep(NODES_GAP_MS);
  if (!S.wantNodes) await Promise.race([sleep(NODES_MS), new Promise((done) => { nodesDue = done; })]);
  S.wantNodes = false;
}

// Until it ends. `EventSource` cannot send the header that the token is in. A stream that has hung is given up.
async function events() {
  const hung = new AbortController();
  let watchdog;
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => hung.abort(), SILENCE_MS);
  };
  try {
    heard();
    await follow(await get("/events", hung.signal), heard);
  } catch (error) {
    throw hung.signal.aborted ? new Error(`nothing came for ${span(SILENCE_MS)}`) : error;
  } finally {
    clearTimeout(watchdog);
    hung.abort();
  }
}

async function follow(answer, heard) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let isNews = false;
  S.feed = "live";
  draw();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the daemon has closed the stream of events");
    heard();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      // A block has one line of data, or is a comment.
      const at = block.indexOf("data: ");
      if (at < 0) continue;
      const event = JSON.parse(block.slice(at + 6));
      if (event.event === "caught_up") {
        if (event.blind_ms > 999) say("·", `some servers were not heard for ${span(event.blind_ms)}; all is known again`);
        S.silent = list(event.silent);
        isNews = true;
      } else if (event.peer_id) {
        takeEvent(event, isNews);
        if (isNews) { S.wantNodes = true; nodesDue(); statusDue(); }
      }
    }
    draw();
  }
}
events.failed = (error, wait) => {
  statusDue();
  S.feed = S.lost ? "waits for the daemon" : `paused: ${error.message}; next try in ${span(wait)}`;
  draw();
};
