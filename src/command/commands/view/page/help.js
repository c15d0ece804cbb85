// The page's signs and keys, in a dialog.

const help = byId("help");
const SIGNS = [
  ["input", "input of a module's call", 20],
  ["parameter", "parameter or buffer", 20],
  ["op", "operation", 4],
  ["scope", "call of a module; a double click leads inside", 8],
  ["output", "output of a module's call", 20],
  ["outside", "value from outside of the scope", 4],
];

const KEYS = [
  ["/", "search; Escape closes it"],
  ["↑ ↓ PageUp PageDown Home End", "move in the tree"],
  ["→ ←", "unfold; fold, or go to the scope around"],
  ["Enter, Space", "unfold or fold"],
  ["*", "unfold all neighbors"],
  ["c", "copy the path"],
  ["p", "copy as --patch"],
  ["y", "copy as Python"],
  ["+ − f", "larger, smaller, fit the width"],
  ["t", "choose the colors of the drawing"],
  ["[ ]", "one step back, one forth, where records kept several values"],
  ["?", "this help"],
];

function sign([kind, meaning, rx]) {
  const box = shape("g", { class: `box ${kind}` }, shape("rect", { x: 2, y: 2, width: 44, height: 20, rx }));
  const drawn = shape("svg", { class: "sign", width: 48, height: 24, "aria-hidden": "true" }, box);
  const mark = kind === "outside" ? element("span", { class: "dot" }) : dot({ kind });
  return element("li", {}, drawn, mark, meaning);
}

byId("signs").append(...SIGNS.map(sign));
byId("keys").append(...KEYS.flatMap(([keys, meaning]) => [
  element("dt", {}, ...keys.split(" ").flatMap((key, at) => [at ? " " : "", element("kbd", {}, key)])),
  element("dd", {}, meaning),
]));
byId("help-button").addEventListener("click", () => help.showModal());
byId("help-close").addEventListener("click", () => help.close());
