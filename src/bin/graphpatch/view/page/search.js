// Search as you type. Words must all be found, anywhere in what is known of a node, or in one field: op:linear,
// shape:*,768, class:Bert, file:modeling, path:layer_0, kind:parameter.

const MOST_SHOWN = 300;
const search = byId("search");
const results = byId("results");
let found = [];
let marked = -1;

function fields(node) {
  // Made when first searched for: opening the page does not wait for it.
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

// `*` stands for one dimension, `...` for any number of them; a dimension that differed between runs matches by its range.
function shapeTest(wanted) {
  const parts = wanted.replace(/[()\s]/g, "").split(",").filter((part) => part !== "");
  const pattern = parts.map((part) => (part === "..." ? "(?:[^,]+,)*" : part === "*" ? "[^,]+," : `${quote(part)},`)).join("");
  const whole = new RegExp(`^${pattern}$`);
  return (node) => {
    const shapes = [...node.label.matchAll(/Tensor\(([^)]*)\)/g)].map((match) => match[1].replace(/\s/g, ""));
    return shapes.some((dims) => whole.test(dims === "" ? "" : dims + ","));
  };
}

const quote = (string) => string.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

function compile(query) {
  const tests = [];
  for (const word of query.toLowerCase().split(/\s+/).filter(Boolean)) {
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
  found = state.graph.nodes.filter(compile(query));
  marked = found.length ? 0 : -1;
  const many = found.length > MOST_SHOWN ? `; the first ${MOST_SHOWN} are shown` : "";
  byId("matches").textContent = `${found.length.toLocaleString("en")} ${found.length === 1 ? "node" : "nodes"}${many}`;
  const words = query.toLowerCase().split(/\s+/).map((word) => word.replace(/^(path|op|class|file|kind):/, ""));
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

// The list stays, so that one can go on to the next.
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
