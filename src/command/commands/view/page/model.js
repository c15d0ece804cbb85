// The graphs, read from the page's data: rows become nodes that know their children, producers and consumers.

const data = JSON.parse(document.getElementById("data").textContent);
const text = (at) => (at === undefined ? "" : data.texts[at]);

function readGraph(raw, number) {
  const nodes = raw.nodes.map((row, at) => ({
    at,
    kind: row.kind,
    name: text(row.name),
    path: row.path,
    label: text(row.label),
    tensor: text(row.tensor),
    target: text(row.target),
    module: text(row.module),
    code: (row.code || []).map(text),
    files: (row.files || []).map(text),
    values: row.values || [],
    uses: [],
    usedBy: [],
    children: [],
    parent: null,
    depth: 0,
    place: 1,
  }));
  raw.nodes.forEach((row, at) => {
    const node = nodes[at];
    if (row.parent !== undefined) {
      node.parent = nodes[row.parent];
      node.depth = node.parent.depth + 1;
      node.place = node.parent.children.push(node);
    }
    for (const [from, dig, argument] of row.uses || []) {
      const use = { from: nodes[from], by: node, dig: text(dig), argument: text(argument) };
      node.uses.push(use);
      use.from.usedBy.push(use);
    }
  });
  const byPath = new Map(nodes.map((node) => [node.path, node]));
  return { number, name: raw.name, runs: raw.runs, nodes, root: nodes[0], byPath };
}

// Reading is fast, yet a file of many graphs shows one at a time.
const graphs = data.graphs.map(() => null);
function graphAt(number) {
  graphs[number] ||= readGraph(data.graphs[number], number);
  return graphs[number];
}

// The scope that a node is in; a scope's own is the one around it.
function scopeOf(node) {
  let scope = node.parent;
  while (scope && scope.kind !== "scope") scope = scope.parent;
  return scope;
}

// The node whose container an element is in; any other node itself.
function ownerOf(node) {
  while (node.kind === "element") node = node.parent;
  return node;
}

// What a node was made from. A scope's values come in through its inputs.
function producers(node) {
  const owner = ownerOf(node);
  if (owner.kind !== "scope") return owner.uses;
  return owner.children
    .filter((child) => child.kind === "input")
    .flatMap((input) => input.uses.map((use) => ({ ...use, argument: input.name })));
}

// What uses a node's value. An output's is known outside by the name of its scope.
function consumers(node) {
  const owner = ownerOf(node);
  const all = owner.kind === "output" && owner.parent ? [...owner.usedBy, ...owner.parent.usedBy] : owner.usedBy;
  if (owner === node) return all;
  const dig = node.path.slice(owner.path.length + 1);
  return all.filter((use) => use.dig === "" || use.dig === dig || use.dig.startsWith(dig + "."));
}

const titleOf = (node) => node.path || "<root>";
