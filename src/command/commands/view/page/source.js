// Where a node was called: the reader's own frames first, those of installed packages folded away below them.

// A line of a frame that says where it is; the line of code behind it is further in.
const isPlace = (line) => /^\s*File "/.test(line);
const isInstalled = (place) => /[/\\](site|dist)-packages[/\\]|[/\\]lib\d*[/\\]python\d|File "\/usr\/(include|lib)/.test(place);

function codeOf(node) {
  if (!node.code.length) return [];
  const title = node.kind === "scope" ? "Code" : node.files.length || isPlace(node.code[0]) ? "Source" : "Code";
  return [element("h3", {}, title), element("div", { id: "code", class: "code", tabindex: "0" }, ...partsOf(node.code).flatMap(shownPart))];
}

// Lines of code, one by one, and stacks of frames; a frame is a list of lines.
function partsOf(lines) {
  const parts = [];
  for (const line of lines) {
    const stack = parts.at(-1)?.stack;
    if (isPlace(line)) {
      if (stack) stack.push([line]);
      else parts.push({ stack: [[line]] });
    } else if (stack && stack.at(-1).length === 1 && /^\s/.test(line)) stack.at(-1).push(line);
    else parts.push({ line });
  }
  return parts;
}

function shownPart({ line, stack }) {
  if (!stack) return [lineOf(line)];
  const own = stack.filter(([place]) => !isInstalled(place));
  const installed = stack.filter(([place]) => isInstalled(place));
  // Without a frame of the reader's, the innermost one tells most.
  const first = own.length ? own : [installed.pop()];
  return [...first.flat().map(lineOf), ...folded(installed, own.length > 0)];
}

// The innermost frame says what was called in the end: where frames of the reader's stand above, the summary names it.
function folded(frames, besideOwn) {
  if (!frames.length) return [];
  const many = `${frames.length} ${frames.length === 1 ? "frame" : "frames"} in installed packages`;
  const innermost = frames.at(-1).map((line) => line.trim().replace(/^File "(?:.*[/\\])?([^"/\\]*)"/, "$1")).join(": ");
  return [element("details", { class: "folded" },
    element("summary", {}, besideOwn ? `${many}, the innermost one: ${innermost}` : `${many} around it`),
    ...frames.flat().map(lineOf))];
}

const lineOf = (line) => element("div", {}, line || "\n");
