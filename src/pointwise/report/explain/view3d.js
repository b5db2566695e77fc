// Points, a query and the cells of its kernel, projected onto a canvas; turned by dragging and by keys.

const VIEW_START = {yaw: -0.6, pitch: 0.42, zoom: 1};
const TURN = Math.PI / 18;

/** A view of a plan's points in a canvas. pick(point) is called for a click on a point. */
function makeView(canvas, layer, pick) {
  const box = boxOf(layer.points);
  const view = {canvas, layer, ...VIEW_START, seen: [], box, blocks: null};
  view.centre = box.low.map((value, axis) => (value + box.high[axis]) / 2);
  listen(view, pick);
  return view;
}

/** The corners between which points lie. */
function boxOf(points) {
  const axes = [0, 1, 2].map(axis => points.map(point => point[axis]));
  return {low: axes.map(values => Math.min(...values)), high: axes.map(values => Math.max(...values))};
}

const cornersOf = ({low, high}) => Array.from({length: 8}, (_, i) => low.map((value, axis) => ((i >> axis) & 1 ? high[axis] : value)));

/** Takes care that a kernel around a point is in the picture, and stays in it: so nothing jumps to and fro. */
function makeRoom(view, point, {kernel, dilation, cellSize}) {
  const reach = ((kernel - 1) / 2 * dilation + 0.5) * cellSize;
  const block = [point.map(value => value - reach), point.map(value => value + reach)];
  view.blocks = boxOf([...block, ...(view.blocks ? [view.blocks.low, view.blocks.high] : [])]);
}

/** Turns, brings nearer or puts back; the name is a key's or a button's. */
function turnView(view, how) {
  const turns = {left: [-1, 0], right: [1, 0], up: [0, 1], down: [0, -1]};
  if (turns[how]) {
    view.yaw += turns[how][0] * TURN;
    view.pitch = clampPitch(view.pitch + turns[how][1] * TURN);
  } else if (how === "nearer") view.zoom = Math.min(4, view.zoom * 1.2);
  else if (how === "farther") view.zoom = Math.max(0.5, view.zoom / 1.2);
  else Object.assign(view, VIEW_START, {blocks: null});
  view.redraw();
}

const clampPitch = pitch => Math.max(-1.5, Math.min(1.5, pitch));

function listen(view, pick) {
  const {canvas} = view;
  let from = null, moved = false;
  canvas.addEventListener("pointerdown", event => {
    from = [event.clientX, event.clientY];
    moved = false;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    if (!from) return;
    const [dx, dy] = [event.clientX - from[0], event.clientY - from[1]];
    if (!moved && Math.hypot(dx, dy) < 4) return;  // a click may tremble
    moved = true;
    view.yaw += dx * 0.01;
    view.pitch = clampPitch(view.pitch + dy * 0.01);
    from = [event.clientX, event.clientY];
    view.redraw();
  });
  const stop = () => { from = null; };
  canvas.addEventListener("pointerup", event => {
    if (from && !moved) pickAt(view, event.offsetX, event.offsetY, pick);
    stop();
  });
  canvas.addEventListener("pointercancel", stop);
}

function pickAt(view, x, y, pick) {
  let nearest = null, least = 16;
  view.seen.forEach(({x: px, y: py}, i) => {
    const distance = Math.hypot(px - x, py - y);
    if (distance < least) [nearest, least] = [i, distance];
  });
  if (nearest !== null) pick(nearest);
}

/**
 * From metres to pixels, with a little perspective; depth grows away from the eye. At zoom 1 the cloud and the kernels
 * that were shown fill the canvas.
 */
function projector(view, width, height) {
  const corners = [view.box, ...(view.blocks ? [view.blocks] : [])].flatMap(cornersOf);
  const reach = Math.max(...corners.map(corner => Math.hypot(...corner.map((value, axis) => value - view.centre[axis]))));
  const flat = flattener(view, 4 * Math.max(reach, 0.1));
  const seen = corners.map(flat);
  const [left, right] = [Math.min(...seen.map(({x}) => x)), Math.max(...seen.map(({x}) => x))];
  const [low, high] = [Math.min(...seen.map(({y}) => y)), Math.max(...seen.map(({y}) => y))];
  const room = 2 * 14;  // for the numbers of cells
  const scale = view.zoom * Math.min((width - room) / Math.max(right - left, 0.1), (height - room) / Math.max(high - low, 0.1));
  return point => {
    const {x, y, depth, size} = flat(point);
    return {x: width / 2 + (x - (left + right) / 2) * scale, y: height / 2 - (y - (low + high) / 2) * scale, depth, size};
  };
}

/** Points as they are seen from so far away: right and up, in metres at the middle of the cloud. */
function flattener({yaw, pitch, centre}, far) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  return point => {
    const [dx, dy, dz] = point.map((value, axis) => value - centre[axis]);
    const across = cy * dx - sy * dy, into = sy * dx + cy * dy;
    const depth = cp * into - sp * dz, up = sp * into + cp * dz;
    const size = far / (far + depth);
    return {x: across * size, y: up * size, depth, size};
  };
}

/** The corners of a cube, in the order in which EDGES and FACES name them. */
function cubeCorners(centre, edge) {
  return Array.from({length: 8}, (_, i) =>
    centre.map((value, axis) => value + ((i >> axis) & 1 ? 0.5 : -0.5) * edge));
}

const EDGES = [[0, 1], [2, 3], [4, 5], [6, 7], [0, 2], [1, 3], [4, 6], [5, 7], [0, 4], [1, 5], [2, 6], [3, 7]];

/** The centre of kernel cell m around a query. */
function cellCentre(query, m, kernel, pitch) {
  const centre = (kernel - 1) / 2;
  const steps = [m % kernel, Math.floor(m / kernel) % kernel, Math.floor(m / kernel ** 2)];
  return query.map((value, axis) => value + (steps[axis] - centre) * pitch);
}

/**
 * Draws the cloud. query is the number of the point that the kernel lies around, null for none; occupied lists
 * {cell, label, members, color}; settings give the kernel, the cell size and the dilation.
 */
function drawView(view, query, occupied, settings, width, height) {
  const context = sized(view.canvas, width, height);
  const {points} = view.layer;
  if (query !== null) makeRoom(view, points[query], settings);
  const project = projector(view, width, height);
  drawGround(context, view, project);
  view.seen = points.map(project);
  view.cubes = query === null ? [] : cubesAround(points[query], occupied, settings, project);
  for (const cube of view.cubes) drawCube(context, cube);
  drawPoints(context, view.seen, occupied);
  if (query === null) return;
  drawRing(context, view.seen[query]);
  writeCellNumbers(context, view.cubes, view.seen[query]);
}

/** The cubes of a kernel, the occupied ones and the nearer ones last. */
function cubesAround(point, occupied, {kernel, cellSize, dilation}, project) {
  const known = new Map(occupied.map(one => [one.cell, one]));
  const cubes = Array.from({length: kernel ** 3}, (_, m) => {
    const centre = cellCentre(point, m, kernel, dilation * cellSize);
    return {...known.get(m), centre: project(centre), corners: cubeCorners(centre, cellSize).map(project)};
  });
  return cubes.sort((one, other) => Boolean(one.color) - Boolean(other.color) || other.centre.depth - one.centre.depth);
}

/** A square of lines under the lowest point, so that up and down are seen. */
function drawGround(context, view, project) {
  const [x0, y0, z] = view.box.low, [x1, y1] = view.box.high;
  context.strokeStyle = COLORS.line;
  context.lineWidth = 1;
  context.beginPath();
  const steps = 4;
  for (let i = 0; i <= steps; i++) {
    const [x, y] = [x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps];
    line(context, project([x, y0, z]), project([x, y1, z]));
    line(context, project([x0, y, z]), project([x1, y, z]));
  }
  context.stroke();
}

function line(context, from, to) {
  context.moveTo(from.x, from.y);
  context.lineTo(to.x, to.y);
}

function drawCube(context, {corners, color}) {
  context.beginPath();
  for (const [a, b] of EDGES) line(context, corners[a], corners[b]);
  context.strokeStyle = color || COLORS.muted;
  context.globalAlpha = color ? 1 : 0.22;
  context.lineWidth = color ? 1.6 : 1;
  context.stroke();
  context.globalAlpha = 1;
}

function drawPoints(context, seen, occupied) {
  const colorOf = new Map(occupied.flatMap(({members, color}) => members.map(j => [j, color])));
  const order = seen.map((_, i) => i).sort((a, b) => seen[b].depth - seen[a].depth);
  for (const i of order) {
    const {x, y, size} = seen[i], color = colorOf.get(i);
    context.beginPath();
    context.arc(x, y, (color ? 5.5 : 3) * size, 0, 2 * Math.PI);
    context.fillStyle = color || COLORS.muted;
    context.fill();
    if (!color) continue;
    context.strokeStyle = COLORS.ink;
    context.lineWidth = 1.2;
    context.stroke();
  }
}

/** The mark around the point of the step. */
function drawRing(context, {x, y, size}) {
  for (const [color, width] of [[COLORS.halo, 6], [COLORS.mark, 3]]) {
    context.beginPath();
    context.arc(x, y, 10 * size, 0, 2 * Math.PI);
    context.strokeStyle = color;
    context.lineWidth = width;
    context.stroke();
  }
}

/** The numbers of the occupied cells, each at one of its corners where no other number stands. */
function writeCellNumbers(context, cubes, ring) {
  const taken = [{x: ring.x, y: ring.y, reach: 15}];
  context.font = "600 12px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  for (const {label, corners, color} of cubes) {
    if (!color) continue;
    const places = corners.map(({x, y}) => ({x, y: y - 7})).sort((one, other) => one.y - other.y);
    const free = places.find(({x, y}) => taken.every(other => Math.hypot(x - other.x, y - other.y) > 9 + other.reach));
    const {x, y} = free || places[0];
    taken.push({x, y, reach: 9});
    context.lineWidth = 4;
    context.strokeStyle = COLORS.surface;
    context.strokeText(String(label), x, y);
    context.fillStyle = COLORS.ink;
    context.fillText(String(label), x, y);
  }
}
