// A sweep's heat map: what changes at the end when a node is patched. Its cells lead to the nodes, and the tree shows
// their colors.

const heat = byId("heat");
const swept = new Map((data.sweep?.nodes || []).map((node, at) => [node.path, at]));
let metric = data.sweep?.metrics[0];

const cellAt = (at) => metric?.cells[at];

// The text about one node, for the chosen metric.
function saidOf(at) {
  const { path, why } = data.sweep.nodes[at];
  const cell = cellAt(at);
  if (!cell) return `${path}\nfailed: ${why}`;
  const far = cell.difference ? `, ${cell.difference} from the bare run's ${metric.bare}` : "";
  return `${path}\n${metric.name}: ${cell.value}${far}`;
}

// The square in the tree's row.
function heatOf(node) {
  const at = swept.get(node.path);
  if (at === undefined) return null;
  const cell = cellAt(at);
  const style = cell?.color ? `background:${cell.color}` : null;
  return element("span", { class: cell ? "heat" : "heat failed", style, title: saidOf(at) });
}

// The part of the details that shows the results of every metric.
function sweepOf(node) {
  const at = swept.get(node.path);
  if (at === undefined) return [];
  const list = element("dl", { "data-list": "sweep" });
  const { why } = data.sweep.nodes[at];
  if (why) list.append(element("dt", { class: "warning" }, "failed"), element("dd", {}, why));
  for (const { name, bare, cells } of data.sweep.metrics) {
    const cell = cells[at];
    if (!cell) continue;
    const far = cell.difference ? ` (bare ${bare})` : "";
    list.append(element("dt", {}, name), element("dd", {}, cell.value + far));
  }
  return [element("h3", {}, "Sweep"), list];
}

function drawHeat() {
  const { columns, rows } = data.sweep;
  byId("bare").textContent = `bare run: ${metric.bare}`;
  byId("least").textContent = metric.ends[0];
  byId("most").textContent = metric.ends[1];
  byId("ramp").style.background = `linear-gradient(to right, ${metric.legend.join(", ")})`;
  const head = element("tr", { role: "row" }, element("td", {}), ...columns.map((column) => element("th", { scope: "col", role: "columnheader" }, column)));
  const lines = rows.map(({ label, cells }) =>
    element("tr", { role: "row" }, element("th", { scope: "row", role: "rowheader", title: label }, label),
      ...cells.map((at) => element("td", { role: "gridcell" }, at === null ? null : drawCell(at)))));
  heat.replaceChildren(element("thead", { role: "rowgroup" }, head), element("tbody", { role: "rowgroup" }, ...lines));
  markHeat(state.node);
}

function drawCell(at) {
  const cell = cellAt(at);
  const style = cell?.color ? `background:${cell.color};color:${cell.light ? "#000" : "#fff"}` : null;
  return element("button", {
    class: cell ? "cell" : "cell failed", type: "button", style, title: saidOf(at), tabindex: -1, "data-path": data.sweep.nodes[at].path,
    onclick: () => showPath(data.sweep.nodes[at].path),
  }, cell ? cell.text : "failed");
}

// Marks the chosen node's cell. If there is none, the key Tab leads to the first cell.
function markHeat(node) {
  if (!data.sweep) return;
  const cells = [...heat.querySelectorAll(".cell")];
  const chosen = cells.find((cell) => cell.dataset.path === node?.path);
  for (const cell of cells) {
    cell.setAttribute("aria-pressed", cell === chosen);
    cell.tabIndex = -1;
  }
  (chosen || cells[0]).tabIndex = 0;
  chosen?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

// Arrow keys move from cell to cell, and skip places without a node.
heat.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey || !event.target.closest(".cell")) return;
  event.preventDefault();
  const place = event.target.closest("td");
  const lines = [...heat.tBodies[0].rows];
  let [row, column] = [lines.indexOf(place.parentNode), place.cellIndex];
  for (;;) {
    [row, column] = [row + step[0], column + step[1]];
    const next = lines[row]?.cells[column];
    if (!next || column < 1) return;
    const cell = next.querySelector(".cell");
    if (!cell) continue;
    event.target.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
    return;
  }
});

function startSweep() {
  if (!data.sweep) return;
  byId("sweep").hidden = false;
  byId("patch").textContent = data.sweep.patch;
  const select = byId("metric");
  data.sweep.metrics.forEach(({ name }, at) => select.append(element("option", { value: at }, name)));
  select.addEventListener("change", () => {
    metric = data.sweep.metrics[Number(select.value)];
    drawHeat();
    drawRows(state.node);
  });
  drawHeat();
}
