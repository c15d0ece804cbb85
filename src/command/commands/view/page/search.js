// Search as you type. Words must all be found, anywhere in what is known of a node, or in one field: op:linear,
// shape:*,768, class:Bert, file:modeling, path:layer_0, kind:parameter.

const MOST_SHOWN = 300;
const search = byId("search");
const results = byId("results");
let found = [];
let marked = -1;

function fields(node) {
  // The fields are made at the first search, so that opening the page does not take longer.
  node.fields ||= {
    path: node.path.toLowerCase(),
    op: (node.kind === "op" ? node.target : "").toLowerCase(),
    class: (node.kind === "scope" ? node.target : "").toLowerCase(),
    file: node.files.join("\n").toLowerCase(),
    kind: node.kind,
    all: [node.path, node.target, node.label, node.tensor, ...node.files].join("\n").toLowerCase(),
  };
  return node.fields;
}

// The same patterns as those of `graphpatch show --shape`: `*` is any size, `...` any number of them, and a size that
// differed between runs fits what has any of its sizes.
function shapeTest(wanted) {
  const inner = wanted.replace(/^tensor(?=\()/, "");
  const list = inner.startsWith("(") ? inner.match(/^\((.*)\)$/)?.[1] : inner || undefined;
  if (list === undefined) throw new SyntaxError("shape: sizes are missing; a scalar is ()");
  const parts = list.trim() === "" ? [] : list.trim().replace(/,+$/, "").split(",").map((part) => part.trim());
  const sizes = parts.map((part) => (/^(\*|\.\.\.|…)$/.test(part) ? part : sizeOf(part)));
  const isRest = (size) => size === "..." || size === "…";
  const rest = sizes.findIndex(isRest);
  if (sizes.filter(isRest).length > 1) throw new SyntaxError("shape: a second `...`");
  const before = rest < 0 ? sizes : sizes.slice(0, rest);
  const after = rest < 0 ? [] : sizes.slice(rest + 1).reverse();
  const fits = (size, seen) => size === "*" || (size.min <= seen.max && seen.min <= size.max);
  const fitsAll = (shape) =>
    (rest < 0 ? shape.length === sizes.length : shape.length >= before.length + after.length) &&
    before.every((size, at) => fits(size, shape[at])) &&
    after.every((size, at) => fits(size, shape[shape.length - 1 - at]));
  return (node) => shapesOf(node).some(fitsAll);
}

function sizeOf(part) {
  const [, min, max] = part.match(/^(\d+)(?:\s*\.\.\s*(\d+))?$/) || [];
  const size = { min: Number(min), max: Number(max ?? min) };
  if (min === undefined || size.min > size.max) {
    throw new SyntaxError("shape: expected sizes such as 1, 5..128, * (any) or ... (any number of them)");
  }
  return size;
}

// The shapes of a node's tensor. There are several if runs gave tensors of different ranks.
function shapesOf(node) {
  if (!node.tensor) return [];
  const tensors = node.label.split("|").map((kind) => kind.match(/^Tensor\((.*)\)$/)).filter(Boolean);
  return tensors.map(([, sizes]) => (sizes === "" ? [] : sizes.split(", ").map(sizeOf)));
}

// Words are separated by spaces. Sizes may have spaces after their commas, or anywhere in parentheses.
function wordsOf(query) {
  return query.toLowerCase().match(/shape:(?:tensor)?\([^)]*\)?|shape:\S*?,(?:\s+(?=[\d*.…])[^\s,]*,?)+\S*|\S+/g) || [];
}

function compile(query) {
  const tests = [];
  for (const word of wordsOf(query)) {
    const [, field, rest] = word.match(/^(path|op|class|file|kind|shape):(.+)$/) || [null, "all", word];
    tests.push(field === "shape" ? shapeTest(rest) : (node) => fields(node)[field].includes(rest));
  }
  return (node) => tests.every((test) => test(node));
}

function runSearch() {
  const query = search.value.trim();
  byId("found").hidden = query === "";
  tree.hidden = query !== "";
  if (query === "") {
    found = [];
    showTree();
    return;
  }
  let wrong = "";
  try {
    found = state.graph.nodes.filter(compile(query));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    found = [];
    wrong = error.message;
  }
  marked = found.length ? 0 : -1;
  const many = found.length > MOST_SHOWN ? `; the first ${MOST_SHOWN} are shown` : "";
  byId("matches").textContent = wrong || `${found.length.toLocaleString("en")} ${found.length === 1 ? "node" : "nodes"}${many}`;
  const words = wordsOf(query).map((word) => word.replace(/^(path|op|class|file|kind):/, ""));
  results.replaceChildren(...found.slice(0, MOST_SHOWN).map((node, at) => drawResult(node, at, words)));
  results.scrollTop = 0;
  markResult();
}

function drawResult(node, at, words) {
  const label = [node.label, node.target].filter(Boolean).join("  ");
  return element(
    "div",
    { class: "found", role: "option", id: `found-${at}`, "data-path": node.path, onclick: () => takeResult(at) },
    dot(node), " ", ...highlighted(titleOf(node), words),
    element("span", { class: "label" }, label),
  );
}

function highlighted(string, words) {
  const lower = string.toLowerCase();
  const word = words.find((word) => lower.includes(word));
  if (!word) return [string];
  const at = lower.indexOf(word);
  return [string.slice(0, at), element("mark", {}, string.slice(at, at + word.length)), string.slice(at + word.length)];
}

function markResult() {
  [...results.children].forEach((result, at) => result.setAttribute("aria-selected", at === marked));
  search.setAttribute("aria-activedescendant", marked < 0 ? "" : `found-${marked}`);
  results.children[marked]?.scrollIntoView({ block: "nearest" });
}

// The list of results stays open, so that the user can go on to the next one.
function takeResult(at) {
  marked = at;
  markResult();
  if (found[at]) onChoose(found[at]);
}

function closeSearch() {
  search.value = "";
  runSearch();
  openAround(state.node);
  showTree();
  scrollTo(state.node);
  drawRows(state.node);
  tree.focus();
}

search.addEventListener("input", runSearch);
search.addEventListener("keydown", (event) => {
  const last = Math.min(found.length, MOST_SHOWN) - 1;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    marked = Math.max(0, Math.min(last, marked + (event.key === "ArrowDown" ? 1 : -1)));
    markResult();
  } else if (event.key === "Enter" && marked >= 0) {
    takeResult(marked);
  } else if (event.key === "Escape") {
    event.preventDefault();
    closeSearch();
  }
});
