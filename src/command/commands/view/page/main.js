// What is chosen, and everything that follows from it. The address behind `#` is the chosen node's path; of graphs after
// the first one with their number in front: `#2:encoder.layer_0`.

const state = { graph: null, node: null, scope: null };

onChoose = function (node, { quiet = false, keepDrawing = false, fromAddress = false } = {}) {
  state.node = node;
  openAround(node);
  showTree();
  scrollTo(node);
  drawRows(node);
  const scope = node.kind === "scope" && !keepDrawing ? node : scopeOf(node) || node;
  const far = scope.children.length > MOST_DRAWN && !drawing.querySelector(`[data-path="${CSS.escape(node.path)}"]`);
  if (scope !== state.scope || far) {
    state.scope = scope;
    drawScope(scope, node);
  }
  markDrawing(node);
  markHeat(node);
  showDetails(node);
  if (!fromAddress) address(node, quiet);
};

function hashOf(node) {
  const number = state.graph.number ? `${state.graph.number + 1}:` : "";
  return `#${number}${encodeURI(node.path).replace(/#/g, "%23")}`;
}

// Moving by arrow keys adds no entry to the browser's history (`quiet`); choosing a node does.
function address(node, quiet) {
  const hash = hashOf(node);
  if (location.hash === hash || (hash === "#" && location.hash === "")) return;
  if (quiet) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
}

function showGraph(number) {
  if (state.graph?.number === number) return;
  state.graph = graphAt(number);
  state.scope = null;
  open.clear();
  openFirst(state.graph.root);
  byId("graphs").value = number;
  startTints();
  drawComparison();
  const { nodes, runs } = state.graph;
  const count = nodes.filter((node) => node.kind !== "element").length;
  byId("counts").textContent = `${count.toLocaleString("en")} nodes, ${runs.toLocaleString("en")} ${runs === 1 ? "run" : "runs"}`;
  if (search.value) runSearch();
}

// Levels are opened as long as they fit on a screen.
function openFirst(root) {
  let level = [root];
  let shown = 1;
  while (level.length) {
    const next = level.flatMap((node) => node.children);
    if (level[0] !== root && shown + next.length > 40) return;
    for (const node of level) if (node.kind === "scope" && node.children.length) open.add(node);
    shown += next.length;
    level = next.filter((node) => node.kind === "scope");
  }
}

function readAddress() {
  let hash = location.hash.slice(1);
  try {
    hash = decodeURIComponent(hash);
  } catch {
    // The address has an incomplete escape: it is taken literally.
  }
  if (hash === "" && state.graph === null) hash = data.start;
  const [, number, path] = hash.match(/^(?:(\d+):)?(.*)$/s);
  const wanted = Math.min(Math.max(1, Number(number || 1)), data.graphs.length) - 1;
  showGraph(number ? wanted : holderOf(path, wanted));
  onChoose(state.graph.byPath.get(path) || state.graph.root, { fromAddress: true });
}

// The number of a graph that has the node: `first`, if it has the node.
function holderOf(path, first) {
  if (graphAt(first).byPath.has(path)) return first;
  return Math.max(0, data.graphs.findIndex((_, at) => graphAt(at).byPath.has(path)));
}

function showPath(path) {
  showGraph(holderOf(path, state.graph.number));
  onChoose(state.graph.byPath.get(path));
}

function start() {
  byId("file").textContent = data.file;
  const select = byId("graphs");
  data.graphs.forEach((graph, at) => select.append(element("option", { value: at }, graph.name)));
  if (!data.graphs.length) {
    details.textContent = "The file holds no graph: no model ran.";
    return;
  }
  select.addEventListener("change", () => {
    showGraph(Number(select.value));
    onChoose(state.graph.root);
  });
  byId("parameters").addEventListener("change", () => {
    drawScope(state.scope, state.node);
    markDrawing(state.node);
  });
  addEventListener("hashchange", readAddress);
  addEventListener("popstate", readAddress);
  addEventListener("resize", () => drawRows(state.node));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "/") {
      event.preventDefault();
      search.focus();
      search.select();
      return;
    }
    const keys = {
      c: copyPath,
      p: () => copyBy("patch"),
      y: () => copyBy("python"),
      "+": () => zoom(scale * 1.25),
      "-": () => zoom(scale / 1.25),
      f: fit,
      t: () => tint.focus(),
      "[": () => moveStep(-1),
      "]": () => moveStep(1),
      "?": () => help.showModal(),
    };
    if (!help.open) keys[event.key]?.();
  });
  startSweep();
  readAddress();
  tree.focus({ preventScroll: true });
  // Marks the time when the first frame is on the screen, for those who measure.
  requestAnimationFrame(() => setTimeout(() => performance.mark("shown")));
}

start();
