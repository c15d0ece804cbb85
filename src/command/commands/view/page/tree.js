// The tree. Only the visible rows are elements of the page, so that a tree of ten thousand nodes is as fast as a small one.

const ROW = 24;
const tree = byId("tree");
const rows = byId("rows");
const open = new Set();
let visible = [];
let onChoose = () => {};

function openAround(node) {
  for (let scope = node.parent; scope; scope = scope.parent) open.add(scope);
}

function listVisible(root) {
  visible = [];
  const stack = [root];
  while (stack.length) {
    const node = stack.pop();
    visible.push(node);
    if (open.has(node)) for (let i = node.children.length - 1; i >= 0; i--) stack.push(node.children[i]);
  }
  rows.style.height = `${visible.length * ROW}px`;
}

function drawRows(chosen) {
  const first = Math.max(0, Math.floor(tree.scrollTop / ROW) - 8);
  const last = Math.min(visible.length, Math.ceil((tree.scrollTop + tree.clientHeight) / ROW) + 8);
  const made = [];
  for (let at = first; at < last; at++) made.push(drawRow(visible[at], at, visible[at] === chosen));
  rows.replaceChildren(...made);
  tree.setAttribute("aria-activedescendant", chosen ? `row-${chosen.at}` : "");
}

function drawRow(node, at, chosen) {
  const inner = node.children.length > 0;
  const twist = inner ? (open.has(node) ? "▾" : "▸") : "";
  const row = element(
    "div",
    {
      class: `row ${node.kind}`,
      role: "treeitem",
      id: `row-${node.at}`,
      "data-path": node.path,
      "aria-level": node.depth + 1,
      "aria-posinset": node.place,
      "aria-setsize": node.parent ? node.parent.children.length : 1,
      "aria-selected": chosen,
      "aria-expanded": inner ? open.has(node) : null,
      title: `${titleOf(node)}: ${node.label}`,
      onclick: (event) => {
        if (inner && event.target.classList.contains("twist")) toggle(node);
        else onChoose(node);
      },
      ondblclick: () => inner && toggle(node),
    },
    element("span", { class: "twist", "aria-hidden": "true" }, twist),
    dot(node),
    heatOf(node),
    markOf(node),
    element("span", { class: "name" }, node.name),
    element("span", { class: "label" }, node.label),
  );
  row.style.top = `${at * ROW}px`;
  row.style.paddingLeft = `${8 + node.depth * 14}px`;
  return row;
}

function toggle(node) {
  if (!open.delete(node)) open.add(node);
  showTree();
}

function scrollTo(node) {
  const at = visible.indexOf(node);
  if (at < 0) return;
  const top = at * ROW;
  const above = tree.scrollTop - top;
  const below = top + ROW - tree.scrollTop - tree.clientHeight;
  // A node that is just out of sight moves the tree by a row; one that is far away is moved to the middle.
  if (Math.max(above, below) > 4 * ROW) tree.scrollTop = top - tree.clientHeight / 2;
  else if (above > 0) tree.scrollTop = top;
  else if (below > 0) tree.scrollTop = top + ROW - tree.clientHeight;
}

function showTree() {
  listVisible(state.graph.root);
  drawRows(state.node);
}

let waiting = false;
tree.addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawRows(state.node);
  });
});

// The keys of a tree, as the WAI-ARIA Authoring Practices describe them.
tree.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const node = state.node;
  const at = visible.indexOf(node);
  const page = Math.max(1, Math.floor(tree.clientHeight / ROW) - 1);
  const step = (to) => onChoose(visible[Math.max(0, Math.min(visible.length - 1, to))], { quiet: true });
  const keys = {
    ArrowDown: () => step(at + 1),
    ArrowUp: () => step(at - 1),
    PageDown: () => step(at + page),
    PageUp: () => step(at - page),
    Home: () => step(0),
    End: () => step(visible.length - 1),
    ArrowRight: () => {
      if (!node.children.length) return;
      if (open.has(node)) step(at + 1);
      else toggle(node);
    },
    ArrowLeft: () => {
      if (open.has(node)) toggle(node);
      else if (node.parent) onChoose(node.parent, { quiet: true });
    },
    Enter: () => node.children.length && toggle(node),
    " ": () => node.children.length && toggle(node),
    "*": () => {
      for (const sibling of node.parent ? node.parent.children : [node]) if (sibling.children.length) open.add(sibling);
      showTree();
    },
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
