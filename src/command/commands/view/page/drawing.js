// One scope's nodes and the data flow between them.

const MOST_DRAWN = 300;
const MARGIN = 20;
const canvas = byId("canvas");
const drawing = byId("drawing");
let scale = 1;
let drawnSize = null;

// The nodes to draw: all of the scope's, or, of a very long one, those around the chosen node.
function drawnNodes(scope, chosen) {
  const parameters = byId("parameters").checked;
  const all = scope.children.filter((child) => parameters || child.kind !== "parameter");
  if (all.length <= MOST_DRAWN) return { all, shown: all };
  let middle = chosen;
  while (middle && middle.parent !== scope) middle = middle.parent;
  const at = Math.max(0, all.indexOf(middle));
  const first = Math.max(0, Math.min(at - MOST_DRAWN / 2, all.length - MOST_DRAWN));
  return { all, shown: all.slice(first, first + MOST_DRAWN) };
}

// Every use of a value between the drawn nodes, or from outside of the scope. A use inside of a drawn scope counts as that
// scope's own.
function flowBetween(scope, shown) {
  const places = new Map(shown.map((node, at) => [node, at]));
  const lift = (node) => {
    while (node && node.parent !== scope) node = node.parent;
    return node;
  };
  const outside = [];
  const edges = new Map();
  const visit = (node, to) => {
    for (const use of node.uses) {
      const inner = lift(use.from);
      let from = places.get(inner || use.from);
      if (from === undefined && inner === null && to.kind !== "input") {
        from = shown.length + outside.length;
        places.set(use.from, from);
        outside.push(use.from);
      }
      if (from === undefined || from === places.get(to)) continue;
      const key = `${from} ${places.get(to)} ${use.dig}`;
      edges.set(key, { from, to: places.get(to), dig: use.dig });
    }
    for (const child of node.children) visit(child, to);
  };
  for (const node of shown) visit(node, node);
  return { outside, edges: [...edges.values()] };
}

function boxOf(node, scope) {
  const isOutside = node.parent !== scope;
  const name = shortened(isOutside ? titleOf(node) : node.name, 30);
  const label = shortened(node.label, 34);
  const width = Math.max(64, Math.max(name.length * 7.3, label.length * 6.4) + 20);
  const late = node.kind === "parameter" || node.kind === "op" || isOutside;
  return { node, name, label, width, height: 40, late, isOutside };
}

function drawScope(scope, chosen) {
  const { all, shown } = drawnNodes(scope, chosen);
  const { outside, edges } = flowBetween(scope, shown);
  // Values from outside stand first, as edges are laid out in the order of the items.
  const joined = new Set(edges.flatMap((edge) => [edge.from, edge.to]));
  const idle = shown.filter((node, at) => node.kind === "input" && !joined.has(at));
  const order = [...outside.map((_, at) => shown.length + at), ...shown.keys()].filter((at) => !idle.includes(shown[at]));
  const items = order.map((at) => boxOf(shown[at] || outside[at - shown.length], scope));
  const places = new Map(order.map((at, place) => [at, place]));
  for (const edge of edges) [edge.from, edge.to] = [places.get(edge.from), places.get(edge.to)];
  const notes = [];
  if (shown.length < all.length) {
    notes.push(`${shown.length} of ${all.length.toLocaleString("en")} nodes, those around ${shown.includes(chosen) ? chosen.name : shown[0].name}`);
  }
  if (idle.length) notes.push(`not used inside: ${idle.map((node) => node.name).join(", ")}`);
  byId("part").hidden = !notes.length;
  byId("part").textContent = notes.join("; ");
  drawCrumbs(scope);
  drawing.replaceChildren();
  if (!items.length) return;
  const size = layOut(items, edges);
  drawnSize = { width: size.width + 2 * MARGIN, height: size.height + 2 * MARGIN };
  const layer = shape("g", { transform: `translate(${MARGIN} ${MARGIN})` });
  for (const edge of edges) layer.append(drawEdge(edge, items));
  for (const edge of edges) if (edge.dig) layer.append(drawDig(edge));
  for (const item of items) layer.append(drawBox(item));
  drawing.append(
    shape("defs", {}, shape("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" },
      shape("path", { class: "tip", d: "M0 0.5 L8 4 L0 7.5 Z" }))),
    layer,
  );
  tintBoxes();
  fit();
}

function drawEdge(edge, items) {
  const [start, ...rest] = edge.points;
  let d = `M${round(start[0])} ${round(start[1])}`;
  let [x, y] = start;
  for (const [toX, toY] of rest) {
    const middle = round((y + toY) / 2);
    d += ` C${round(x)} ${middle} ${round(toX)} ${middle} ${round(toX)} ${round(toY)}`;
    [x, y] = [toX, toY];
  }
  return shape("path", { class: "edge", d, "marker-end": "url(#tip)",
    "data-from": items[edge.from].node.path, "data-to": items[edge.to].node.path, "data-dig": edge.dig });
}

function drawDig(edge) {
  const [[x, y], [nextX, nextY]] = edge.points;
  return shape("text", { class: "edge-label", x: round((x + nextX) / 2 + 4), y: round((y + nextY) / 2) }, edge.dig);
}

const round = (number) => Math.round(number * 10) / 10;

function drawBox(item) {
  const { node, x, y, width, height } = item;
  const said = [titleOf(node), node.label, node.target, node.kind === "scope" ? "double click: inside" : ""].filter(Boolean).join("\n");
  return shape(
    "g",
    {
      class: `box ${node.kind}${item.isOutside ? " outside" : ""}`,
      transform: `translate(${round(x - width / 2)} ${round(y - height / 2)})`,
      "data-path": node.path,
      "data-said": said,
      onclick: () => onChoose(node, { keepDrawing: !item.isOutside }),
      ondblclick: () => node.kind === "scope" && onChoose(node),
    },
    shape("title", {}, said),
    shape("rect", { width, height, rx: node.kind === "op" ? 4 : node.kind === "scope" ? 8 : 20 }),
    shape("text", { x: width / 2, y: 17 }, item.name),
    shape("text", { class: "label", x: width / 2, y: 31 }, item.label),
  );
}

function drawCrumbs(scope) {
  const way = [];
  for (let node = scope; node; node = node.parent) way.unshift(node);
  const crumbs = way.flatMap((node, at) => [
    at ? " › " : "",
    at === way.length - 1
      ? element("strong", {}, node.name)
      : element("button", { class: "link", type: "button", onclick: () => onChoose(node) }, node.name),
  ]);
  byId("crumbs").replaceChildren(...crumbs);
}

// Marks the chosen box, and the edges that lead to it and from it.
function markDrawing(chosen) {
  const owner = chosen && ownerOf(chosen);
  for (const box of drawing.querySelectorAll(".box")) box.classList.toggle("chosen", box.dataset.path === owner?.path);
  for (const edge of drawing.querySelectorAll(".edge")) {
    edge.classList.toggle("from", edge.dataset.to === owner?.path);
    edge.classList.toggle("to", edge.dataset.from === owner?.path);
  }
  const box = drawing.querySelector(".box.chosen");
  box?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function zoom(to) {
  if (!drawnSize) return;
  scale = Math.max(0.15, Math.min(2.5, to));
  drawing.setAttribute("viewBox", `0 0 ${drawnSize.width} ${drawnSize.height}`);
  drawing.setAttribute("width", drawnSize.width * scale);
  drawing.setAttribute("height", drawnSize.height * scale);
}

// Shows the whole width of the drawing, unless its text would become too small to read.
function fit() {
  if (!drawnSize) return;
  zoom(Math.max(0.55, Math.min(1, (canvas.clientWidth - 16) / drawnSize.width)));
  canvas.scrollTop = 0;
  canvas.scrollLeft = Math.max(0, (drawnSize.width * scale - canvas.clientWidth) / 2);
}

byId("fit").addEventListener("click", fit);
byId("larger").addEventListener("click", () => zoom(scale * 1.25));
byId("smaller").addEventListener("click", () => zoom(scale / 1.25));
canvas.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoom(scale * (event.deltaY < 0 ? 1.1 : 1 / 1.1));
}, { passive: false });
