// What the person does, and the one place that draws.

let isDue = false;

// Draws all that has changed, once in a frame, however much has happened.
function draw() {
  if (isDue) return;
  isDue = true;
  // A crowd that changes is drawn four times a second.
  setTimeout(requestAnimationFrame, known.size > 300 ? 250 : 0, () => {
    isDue = false;
    drawLink();
    drawEvents();
    if (!S.status) return;
    known = peers();
    drawTop(S.status);
    drawPicture(known);
    drawStart(S.status);
    drawLoops(S.status);
    drawWho(S.status);
    drawTables(S.status);
  });
}

function filterBy(server) {
  filters.at = filters.at === server ? "" : server;
  shown = PAGE_ROWS;
  draw();
}

function showOne(id) {
  Object.assign(filters, { name: id, role: "", service: "", tag: "", at: "" });
  $("f-name").value = id;
  opened.add(id);
  draw();
  $("who").scrollIntoView({ block: "nearest" });
}

$("filter").addEventListener("input", (event) => {
  filters[event.target.id.slice(2)] = event.target.value.trim();
  shown = PAGE_ROWS;
  draw();
});
$("filter").addEventListener("reset", () => {
  for (const name in filters) filters[name] = "";
  shown = PAGE_ROWS;
  draw();
});
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => { shown += PAGE_ROWS; draw(); });
$("all-gone").addEventListener("click", () => { allGone = !allGone; draw(); });
$("all-tables").addEventListener("click", () => { allTables = !allTables; draw(); });

const THEMES = { "": "System", light: "Light", dark: "Dark" };
let theme = "";
try { theme = localStorage.getItem("oc-theme") || ""; } catch {}
function paint() {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  $("theme").textContent = THEMES[theme];
  $("theme").setAttribute("aria-label", `Colours: ${THEMES[theme]}`);
}
$("theme").addEventListener("click", () => {
  theme = { "": "light", light: "dark", dark: "" }[theme];
  try { localStorage.setItem("oc-theme", theme); } catch {}
  paint();
});
paint();

new ResizeObserver(draw).observe($("picture"));
setInterval(() => { if (document.visibilityState === "visible") draw(); }, 1000);
keep(status, untilStatusIsDue);
keep(nodes, untilNodesAreDue);
keep(events, () => sleep(1000));
