// Layered drawing of a directed graph: longest-path layers, barycentre order, then positions that keep the order and
// are as near to the neighbours' as they can be.

const GAP_X = 26;
const GAP_Y = 46;
const MOST_BENDS = 4000;

// items: [{ width, height, late }], in an order that edges mostly follow; edges: [{ from, to }] by places in items.
// Gives items x and y (the middle of each), gives edges their points, and returns the size.
function layOut(items, edges) {
  const forward = edges.filter((edge) => edge.from < edge.to);
  assignLayers(items, forward);
  const cells = items.map((item) => ({ item, layer: item.layer, width: item.width, up: [], down: [] }));
  const bends = addBends(cells, forward);
  const layers = [];
  for (const cell of cells) (layers[cell.layer] ||= []).push(cell);
  for (let i = 0; i < layers.length; i++) layers[i] ||= [];
  order(layers);
  place(layers);
  return finish(items, edges, cells, layers, bends);
}

function assignLayers(items, edges) {
  for (const item of items) item.layer = 0;
  const outgoing = items.map(() => []);
  const incoming = items.map(() => 0);
  for (const edge of edges) {
    outgoing[edge.from].push(edge.to);
    incoming[edge.to]++;
  }
  items.forEach((item, at) => {
    for (const to of outgoing[at]) items[to].layer = Math.max(items[to].layer, item.layer + 1);
  });
  // An item without incoming edges is drawn in the layer just above the first item that uses it.
  items.forEach((item, at) => {
    if (!incoming[at] && item.late && outgoing[at].length) {
      item.layer = Math.max(0, Math.min(...outgoing[at].map((to) => items[to].layer)) - 1);
    }
  });
}

// An edge over several layers gets a bend in each of them, so that it does not cross boxes.
function addBends(cells, edges) {
  const steps = edges.reduce((sum, edge) => sum + cells[edge.to].layer - cells[edge.from].layer - 1, 0);
  const bends = new Map();
  const join = (upper, lower) => {
    upper.down.push(lower);
    lower.up.push(upper);
  };
  for (const edge of edges) {
    const chain = [];
    let last = cells[edge.from];
    if (steps <= MOST_BENDS) {
      for (let layer = last.layer + 1; layer < cells[edge.to].layer; layer++) {
        const bend = { item: null, layer, width: 8, up: [], down: [] };
        cells.push(bend);
        chain.push(bend);
        join(last, bend);
        last = bend;
      }
    }
    join(last, cells[edge.to]);
    bends.set(edge, chain);
  }
  return bends;
}

function order(layers) {
  const number = () => layers.forEach((layer) => layer.forEach((cell, at) => (cell.at = at)));
  number();
  let best = layers.map((layer) => [...layer]);
  let fewest = crossings(layers);
  for (let sweep = 0; sweep < 10 && fewest > 0; sweep++) {
    const side = sweep % 2 ? "down" : "up";
    const walk = sweep % 2 ? [...layers].reverse() : layers;
    for (const layer of walk) {
      for (const cell of layer) {
        const near = cell[side];
        cell.weight = near.length ? near.reduce((sum, other) => sum + other.at, 0) / near.length : cell.at;
      }
      layer.sort((a, b) => a.weight - b.weight || a.at - b.at);
      layer.forEach((cell, at) => (cell.at = at));
    }
    const now = crossings(layers);
    if (now < fewest) {
      fewest = now;
      best = layers.map((layer) => [...layer]);
    }
  }
  best.forEach((layer, at) => (layers[at] = layer));
  number();
}

function crossings(layers) {
  let count = 0;
  for (const layer of layers) {
    const ends = layer.flatMap((cell) => cell.down.map((to) => to.at).sort((a, b) => a - b));
    for (let i = 0; i < ends.length; i++) for (let j = i + 1; j < ends.length; j++) if (ends[i] > ends[j]) count++;
  }
  return count;
}

function place(layers) {
  for (const layer of layers) {
    let x = 0;
    for (const cell of layer) {
      cell.x = x + cell.width / 2;
      x += cell.width + GAP_X;
    }
    for (const cell of layer) cell.x -= x / 2;
  }
  for (let pass = 0; pass < 16; pass++) {
    const down = pass % 2 === 0;
    const side = down ? "up" : "down";
    for (const layer of down ? layers : [...layers].reverse()) settle(layer, side, pass >= 12);
  }
}

// The positions nearest to those wanted that keep the order and the gaps: least squares, by pooling neighbours that
// would overlap.
function settle(layer, side, both) {
  const pools = [];
  let offset = 0;
  layer.forEach((cell, at) => {
    if (at) offset += (layer[at - 1].width + cell.width) / 2 + GAP_X * (cell.item && layer[at - 1].item ? 1 : 0.6);
    cell.offset = offset;
    const near = both ? [...cell.up, ...cell.down] : cell[side];
    const wanted = near.length ? near.reduce((sum, other) => sum + other.x, 0) / near.length : cell.x;
    // Bends weigh more than items, so that long edges are straight. Cells without neighbours weigh least.
    const weight = near.length ? (cell.item ? 1 : 3) : 0.1;
    pools.push({ sum: (wanted - offset) * weight, weight, cells: [cell] });
    while (pools.length > 1) {
      const [left, right] = pools.slice(-2);
      if (left.sum / left.weight <= right.sum / right.weight) break;
      pools.splice(-2, 2, { sum: left.sum + right.sum, weight: left.weight + right.weight, cells: left.cells.concat(right.cells) });
    }
  });
  for (const pool of pools) for (const cell of pool.cells) cell.x = pool.sum / pool.weight + cell.offset;
}

function finish(items, edges, cells, layers, bends) {
  const left = Math.min(...cells.map((cell) => cell.x - cell.width / 2));
  const right = Math.max(...cells.map((cell) => cell.x + cell.width / 2));
  let y = 0;
  for (const layer of layers) {
    const height = Math.max(8, ...layer.map((cell) => (cell.item ? cell.item.height : 0)));
    for (const cell of layer) cell.y = y + height / 2;
    y += height + GAP_Y;
  }
  items.forEach((item, at) => {
    item.x = cells[at].x - left;
    item.y = cells[at].y;
  });
  for (const edge of edges) {
    const [from, to] = [items[edge.from], items[edge.to]];
    const between = (bends.get(edge) || []).map((bend) => [bend.x - left, bend.y]);
    edge.points = [[from.x, from.y + from.height / 2], ...between, [to.x, to.y - to.height / 2]];
  }
  return { width: right - left, height: y - GAP_Y };
}
