// What a node is called where it is patched: on the command line, and in Python.

// The path of the tensor that a patch at the node changes. For a scope that is its output; null where there is no tensor.
function patchedPath(node) {
  const leaf = node.kind === "scope" ? node.children.find((child) => child.kind === "output") : node;
  return leaf?.tensor ? leaf.path : null;
}

// A path that other graphs of the file have, too, is written with its root in front.
function rootedPath(path) {
  const here = state.graph.number;
  const isShared = data.graphs.some((graph, at) => at !== here && graph.nodes.some((row) => row.path === path));
  return isShared ? `${state.graph.name}:${path}` : path;
}

const forShell = (path) => `--patch '${`${rootedPath(path)}=zero`.replace(/'/g, "'\\''")}'`;
// Strings of JSON are strings of Python, too.
const forPython = (path) => `with pg.patch({${JSON.stringify(path)}: ZeroPatch()}):`;

function patchButtons(node) {
  const path = patchedPath(node);
  if (path === null) return [];
  return [
    copyButton("patch", "Copy as --patch", "Copy as an option of graphpatch run (p)", forShell(path)),
    copyButton("python", "Copy as Python", "Copy as a block of Python (y)", forPython(path)),
  ];
}

function copyButton(name, label, title, string) {
  return element("button", { class: "copying", type: "button", "data-copy": name, "data-text": string, title, onclick: () => copyBy(name) }, label);
}

async function copyBy(name) {
  const button = details.querySelector(`[data-copy=${name}]`);
  if (!button) return;
  const label = button.textContent;
  if (label === "Copied") return;
  await copy(button.dataset.text);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = label), 1200);
}
