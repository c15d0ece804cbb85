// The graphs, read from the page's data: rows become nodes that know their children, producers and consumers.

const data = JSON.parse(document.getElementById("data").textContent);
const text = (at) => (at === undefined ? "" : data.texts[at]);

// The values of a record have their numbers behind `#`.
const numberOf = (value) => Number(value.key.match(/#(\d+)$/)?.[1] ?? 0);
const inOrder = (values) => values.sort((a, b) => numberOf(a) - numberOf(b));

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
    values: inOrder(row.values || []),
    others: inOrder(row.others || []),
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

// A graph is read when it is first shown, since a page of many graphs shows one at a time.
const graphs = data.graphs.map(() => null);
function graphAt(number) {
  graphs[number] ||= readGraph(data.graphs[number], number);
  return graphs[number];
}

// The scope that a node is in; for a scope, the scope around it.
function scopeOf(node) {
  let scope = node.parent;
  while (scope && scope.kind !== "scope") scope = scope.parent;
  return scope;
}

// For an element of a container, the node whose value the container is; any other node itself.
function ownerOf(node) {
  while (node.kind === "element") node = node.parent;
  return node;
}

// The values that a node was made from. For a scope: the values that its inputs were made from.
function producers(node) {
  const owner = ownerOf(node);
  if (owner.kind !== "scope") return owner.uses;
  return owner.children
    .filter((child) => child.kind === "input")
    .flatMap((input) => input.uses.map((use) => ({ ...use, argument: input.name })));
}

// The nodes that use a node's value. Outside of a scope, its output's value is used under the name of the scope.
function consumers(node) {
  const owner = ownerOf(node);
  const all = owner.kind === "output" && owner.parent ? [...owner.usedBy, ...owner.parent.usedBy] : owner.usedBy;
  if (owner === node) return all;
  const dig = node.path.slice(owner.path.length + 1);
  return all.filter((use) => use.dig === "" || use.dig === dig || use.dig.startsWith(dig + "."));
}

const titleOf = (node) => node.path || "<root>";
