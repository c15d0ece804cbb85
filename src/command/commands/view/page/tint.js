// The colors of the drawing: by kind, by what a sweep has measured, or by a statistic of the kept values. Where records kept
// several values of a node, a slider chooses the one that is shown.

const tint = byId("tint");
const slider = byId("step");
const STATISTICS = { l2: "L2 norm", mean: "mean", std: "standard deviation", min: "smallest", max: "largest", nan: "NaN" };
// The colors of Viridis, which are told apart without seeing hues.
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const ranges = new Map();

function viridis(at) {
  const place = Math.max(0, Math.min(1, at)) * (VIRIDIS.length - 1);
  const low = Math.min(VIRIDIS.length - 2, Math.floor(place));
  return VIRIDIS[low].map((from, i) => Math.round(from + (VIRIDIS[low + 1][i] - from) * (place - low)));
}

// Black or white, whichever is easier to read on a color.
function inkOn(color) {
  const [r, g, b] = color.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

// The node whose value a box stands for.
const tinted = (node) => (node.kind === "scope" && node.children.find((child) => child.kind === "output")) || node;

const atStep = (values) => values[Math.min(Number(slider.value), values.length - 1)];

// The range over all values of the graph, so that colors of different steps can be compared.
function rangeOf(statistic) {
  const key = `${state.graph.number} ${statistic}`;
  if (!ranges.has(key)) {
    const all = state.graph.nodes.flatMap((node) => node.values.map((value) => value[statistic])).filter((number) => number !== null);
    ranges.set(key, all.length ? { least: Math.min(...all), most: Math.max(...all) } : null);
  }
  return ranges.get(key);
}

// The color, the ink on it and the words for a node; null where nothing is known of it.
function tintOf(node) {
  const owner = tinted(node);
  if (tint.value.startsWith("sweep ")) {
    const at = swept.get(owner.path) ?? swept.get(node.path);
    const cell = at === undefined ? null : data.sweep.metrics[Number(tint.value.slice(6))].cells[at];
    return cell?.color ? { color: cell.color, ink: cell.light ? "#000" : "#fff", said: cell.value } : null;
  }
  const range = tint.value === "kind" ? null : rangeOf(tint.value);
  if (!range || !owner.values.length) return null;
  const number = atStep(owner.values)[tint.value];
  if (number === null) return null;
  const color = viridis((number - range.least) / (range.most - range.least || 1));
  return { color: `rgb(${color.join(" ")})`, ink: inkOn(color), said: `${STATISTICS[tint.value]} ${short(number)}` };
}

function tintBoxes() {
  for (const box of drawing.querySelectorAll(".box")) {
    const node = state.graph.byPath.get(box.dataset.path);
    const shade = tintOf(node);
    box.querySelector("rect").style.fill = shade ? shade.color : "";
    for (const line of box.querySelectorAll("text")) line.style.fill = shade ? shade.ink : "";
    box.classList.toggle("tinted", shade !== null);
    box.querySelector("title").textContent = [box.dataset.said, shade?.said].filter(Boolean).join("\n");
  }
  const range = STATISTICS[tint.value] ? rangeOf(tint.value) : null;
  byId("tint-scale").hidden = !range;
  if (!range) return;
  byId("tint-least").textContent = short(range.least);
  byId("tint-most").textContent = short(range.most);
  byId("tint-ramp").style.background = `linear-gradient(to right, ${VIRIDIS.map((color) => `rgb(${color.join(" ")})`).join(", ")})`;
}

// Which colors there are, and how many steps, depends on the graph.
function startTints() {
  const steps = state.graph.nodes.reduce((most, node) => Math.max(most, node.values.length), 0);
  byId("steps").hidden = steps < 2;
  slider.max = Math.max(0, steps - 1);
  slider.value = slider.max;
  showStep();
  const options = [["kind", "kind"]];
  for (const [at, { name }] of (data.sweep?.metrics || []).entries()) options.push([`sweep ${at}`, `sweep: ${name}`]);
  if (steps) options.push(...Object.entries(STATISTICS));
  const before = tint.value;
  tint.replaceChildren(...options.map(([value, name]) => element("option", { value }, name)));
  tint.value = options.some(([value]) => value === before) ? before : "kind";
  byId("tints").hidden = options.length < 2;
}

function showStep() {
  byId("step-number").textContent = `${slider.value} of ${slider.max}`;
}

function moveStep(by) {
  if (byId("steps").hidden) return;
  slider.value = Number(slider.value) + by;
  slider.dispatchEvent(new Event("input"));
}

tint.addEventListener("change", tintBoxes);
slider.addEventListener("input", () => {
  showStep();
  tintBoxes();
  byId("values")?.replaceWith(...valuesOf(state.node));
});
