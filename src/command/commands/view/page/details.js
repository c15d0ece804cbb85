// All that is known of one node.

const MOST_LISTED = 60;
const MOST_VALUES = 24;
const details = byId("details");

function showDetails(node) {
  details.scrollTop = 0;
  details.replaceChildren(
    element("h2", {}, dot(node), node.name),
    pathLine(node),
    facts(node),
    ...links("Producers", producers(node), (use) => use.from, node),
    ...links("Consumers", consumers(node), (use) => use.by, node),
    ...valuesOf(node),
    ...comparisonOf(node),
    ...sweepOf(node),
    ...codeOf(node),
  );
}

function pathLine(node) {
  const button = element("button", { class: "copy", type: "button", title: "Copy the path (c)", onclick: copyPath }, "Copy");
  return element("div", { class: "path" }, element("code", { id: "path" }, titleOf(node)), button, ...patchButtons(node));
}

async function copyPath() {
  await copy(state.node.path);
  const button = details.querySelector(".copy");
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1200);
}

function facts(node) {
  const list = element("dl");
  const fact = (name, value) => value && list.append(element("dt", {}, name), element("dd", {}, value));
  const [dtype, device, layout] = node.tensor.split(" ");
  fact("Kind", node.kind);
  fact(node.kind === "scope" ? "Nodes" : "Shape", node.kind === "scope" ? node.label.replace(/\D/g, "") : node.label);
  fact("dtype", dtype);
  fact("Device", device);
  fact("Layout", layout);
  fact({ op: "Operation", scope: "Class", parameter: "Attribute" }[node.kind] || "Target", node.target);
  fact("Module", node.module);
  return list;
}

function links(title, uses, end, around) {
  if (!uses.length) return [];
  const list = element("ul", { "data-list": title.toLowerCase() });
  for (const use of uses.slice(0, MOST_LISTED)) {
    const node = end(use);
    // Nodes of the same scope are shown by their names, others by their paths.
    const near = scopeOf(node) === scopeOf(around) && node.parent;
    const shown = (near ? node.name : titleOf(node)) + (title === "Producers" && use.dig ? `|${use.dig}` : "");
    const argument = /^\d+$/.test(use.argument) ? `argument ${use.argument}` : use.argument;
    list.append(element("li", {}, dot(node),
      element("button", { class: "link", type: "button", title: node.path, "data-path": node.path, onclick: () => onChoose(node) }, shown),
      element("span", { class: "note" }, argument)));
  }
  if (uses.length > MOST_LISTED) list.append(element("li", {}, `… and ${uses.length - MOST_LISTED} more`));
  return [element("h3", {}, title), list];
}

function valuesOf(node) {
  if (!node.values.length) return [];
  // Of very many, those around the step that the slider is at.
  const step = node.values.indexOf(atStep(node.values));
  const first = Math.max(0, Math.min(step - MOST_VALUES / 2, node.values.length - MOST_VALUES));
  const shown = node.values.slice(first, first + MOST_VALUES);
  const more = node.values.length - shown.length;
  return [
    element("div", { id: "values" },
      element("h3", {}, "Values"),
      ...shown.map((value) => valueOf(value, node.values.length > 1 && value === node.values[step])),
      more > 0 ? element("p", {}, `… and ${more} more`) : ""),
  ];
}

const short = (number) => (number === null ? "–" : Number(number.toPrecision(5)).toString());

function valueOf(value, isCurrent = false) {
  const list = element("dl");
  for (const [name, number] of [["min", value.min], ["max", value.max], ["mean", value.mean], ["std", value.std], ["L2", value.l2]]) {
    list.append(element("dt", {}, name), element("dd", { "data-statistic": name }, short(number)));
  }
  for (const [name, count] of [["NaN", value.nan], ["Inf", value.inf]]) {
    if (count) list.append(element("dt", { class: "warning" }, name), element("dd", { class: "warning", "data-statistic": name }, String(count)));
  }
  return element("div", { class: "value", "data-key": value.key, "aria-current": isCurrent ? "step" : null },
    element("h4", {}, value.key),
    element("p", { class: "ends" }, `${value.dtype} [${value.shape.join(", ")}], ${value.count.toLocaleString("en")} elements`),
    list, ...histogramOf(value));
}

function histogramOf(value) {
  if (!value.histogram.length) return [];
  const bins = value.histogram.length;
  const most = Math.max(...value.histogram);
  const bars = value.histogram.map((count, at) => {
    const height = (count / most) * 100;
    return shape("rect", { x: at * 10 + 0.5, width: 9, y: 100 - height, height }, shape("title", {}, String(count)));
  });
  const name = `Histogram from ${short(value.min)} to ${short(value.max)}`;
  return [
    shape("svg", { class: "histogram", viewBox: `0 0 ${bins * 10} 100`, preserveAspectRatio: "none", role: "img", "aria-label": name }, ...bars),
    element("div", { class: "ends" }, element("span", {}, short(value.min)), element("span", {}, short(value.max))),
  ];
}
