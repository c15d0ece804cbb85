// What differs in another recording: marks in the tree, a list of all differences, and both sides in the details.

const compared = data.compared;
const SIGN_OF = { only_a: "−", only_b: "+", value: "≠", code: "≠" };
const WORD_OF = { only_a: "only here", only_b: "only there", value: "another value", code: "computed otherwise" };

const differencesOf = (graph) => compared?.graphs[graph.number].differences || [];

// By path, made when a graph is first asked for.
const byNode = new Map();
function differencesAt(node) {
  if (!byNode.has(state.graph)) {
    byNode.set(state.graph, Map.groupBy(differencesOf(state.graph), (difference) => difference.path));
  }
  return byNode.get(state.graph).get(node.path) || [];
}

function markOf(node) {
  const [first] = compared ? differencesAt(node) : [];
  return first ? element("span", { class: "differs", title: WORD_OF[first.difference] }, SIGN_OF[first.difference]) : null;
}

function comparisonOf(node) {
  if (!compared) return [];
  const found = differencesAt(node).map(({ difference, a, b }) =>
    element("table", { class: "sides", "data-difference": difference },
      element("caption", {}, WORD_OF[difference]),
      element("tr", {}, element("th", { scope: "row" }, data.file), element("td", {}, a ?? "–")),
      element("tr", {}, element("th", { scope: "row" }, compared.file), element("td", {}, b ?? "–"))));
  const others = node.others.map((value) => valueOf(value));
  if (!found.length && !others.length) return [];
  return [element("h3", {}, `In ${compared.file}`), ...found, ...others];
}

function drawComparison() {
  if (!compared) return;
  const all = differencesOf(state.graph);
  byId("compare").hidden = false;
  byId("compare-count").textContent =
    `${all.length.toLocaleString("en")} ${all.length === 1 ? "difference" : "differences"} from ${compared.file}`;
  const lines = all.slice(0, MOST_SHOWN).map(({ difference, path, a, b }) => {
    const node = state.graph.byPath.get(path);
    const name = node
      ? element("button", { class: "link", type: "button", "data-path": path, onclick: () => onChoose(node) }, path)
      : element("span", { "data-path": path }, path);
    const sides = difference === "value" || difference === "code" ? `${a} → ${b}` : (a ?? b);
    return element("li", {}, element("span", { class: "differs", title: WORD_OF[difference] }, SIGN_OF[difference]), name,
      element("span", { class: "label" }, sides));
  });
  if (all.length > MOST_SHOWN) lines.push(element("li", {}, `… and ${(all.length - MOST_SHOWN).toLocaleString("en")} more`));
  const only = compared.only.map((name) => element("li", {}, element("span", { class: "differs" }, "+"), `root ${name}`));
  byId("differences").replaceChildren(...lines, ...only);
}
