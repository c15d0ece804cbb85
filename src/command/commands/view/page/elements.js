// Making elements. Every text of a graph goes through textContent, so none is ever read as markup.

const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  return fill(made, attributes, children);
}

// The namespace of SVG is taken from the page's own <svg>.
function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(byId("drawing").namespaceURI, name);
  return fill(made, attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const dot = (node) => element("span", { class: `dot ${node.kind}`, title: node.kind });

function shortened(string, most) {
  return string.length <= most ? string : string.slice(0, most - 1) + "…";
}

async function copy(string) {
  try {
    await navigator.clipboard.writeText(string);
  } catch {
    // A page that was opened from a file may not have navigator.clipboard.
    const area = element("textarea", { style: "position:fixed;opacity:0" });
    area.value = string;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
