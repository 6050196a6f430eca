// The map of the catalog: wheel, pinch or +/- zooms, dragging moves, a click on a dot plays it.
// Colours are the most frequent tags. The hits of the last search are larger.

import { $, api, make } from "./api.js";
import { playing, toggle } from "./player.js";

const COLOURS = ["#4c78a8", "#e8833a", "#54a24b", "#d9534f", "#8e6bbf", "#2ba5a0", "#c9a227", "#d876a8"];
const canvas = $("map");
const view = { x: 0, y: 0, zoom: 1 };
const fingers = new Map();
let points = null, colours = new Map(), at = null, found = new Set(), only = null, moved = 0;
let steer = () => {};

export async function open(hits, onSteer) {
  steer = onSteer;
  points ??= (await (await api("/v1/map")).json()).points;
  const counts = new Map();
  for (const point of points) if (point.tag) counts.set(point.tag, (counts.get(point.tag) || 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]).slice(0, COLOURS.length);
  colours = new Map(most.map(([tag], index) => [tag, COLOURS[index]]));
  $("legend").replaceChildren(...[...colours].map(([tag, colour]) => {
    const chip = make("button", "", tag), dot = make("i");
    dot.style.background = colour;
    chip.prepend(dot);
    chip.setAttribute("aria-pressed", "false");
    chip.onclick = () => {
      only = only === tag ? null : tag;
      for (const other of $("legend").children) other.setAttribute("aria-pressed", String(other === chip && only === tag));
      draw();
    };
    return chip;
  }));
  mark(hits);
}

export function mark(hits) {
  found = new Set(hits.map((hit) => hit.track_id));
  draw();
}

function spot(point) {
  const width = canvas.clientWidth, height = canvas.clientHeight;
  return [((point.x - view.x) * view.zoom * 0.46 + 0.5) * width, (0.5 - (point.y - view.y) * view.zoom * 0.46) * height];
}

export function draw() {
  if (!points || !canvas.clientWidth) return;
  const pen = canvas.getContext("2d"), scale = devicePixelRatio || 1, style = getComputedStyle(canvas);
  canvas.width = canvas.clientWidth * scale;
  canvas.height = canvas.clientHeight * scale;
  pen.scale(scale, scale);
  const size = Math.min(3 + view.zoom * 0.5, 7), now = playing()?.track_id;
  for (const point of [...points].sort((a, b) => found.has(a.track_id) - found.has(b.track_id))) {
    const large = found.has(point.track_id);
    pen.fillStyle = colours.get(point.tag) || style.getPropertyValue("--soft");
    const known = colours.has(point.tag);
    pen.globalAlpha = only && point.tag !== only ? 0.08 : large ? 1 : (found.size ? 0.45 : 0.8) * (known ? 1 : 0.5);
    pen.beginPath();
    pen.arc(...spot(point), large ? size + 3 : size, 0, 7);
    pen.fill();
    if (point === at || point.track_id === now) {
      pen.globalAlpha = 1;
      pen.lineWidth = 2;
      pen.strokeStyle = style.getPropertyValue(point === at ? "--ink" : "--accent");
      pen.beginPath();
      pen.arc(...spot(point), size + 5, 0, 7);
      pen.stroke();
    }
  }
  name();
}

function name() {
  const tip = $("map-name");
  tip.hidden = !at;
  if (!at) return;
  tip.replaceChildren(make("b", "", at.title || at.track_id), [at.artist, at.tag].filter(Boolean).map((text) => ` · ${text}`).join(""));
  const [x, y] = spot(at);
  tip.style.left = `${Math.max(4, Math.min(canvas.clientWidth - tip.offsetWidth - 4, x - tip.offsetWidth / 2))}px`;
  tip.style.top = `${y > 52 ? y - 44 : y + 14}px`;
}

const placeOf = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

function nearest([x, y], reach = 18) {
  let best = null, least = reach ** 2;
  for (const point of points || []) {
    if (only && point.tag !== only) continue;
    const [px, py] = spot(point), distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least) [least, best] = [distance, point];
  }
  return best;
}

function zoom(factor, [x, y] = [canvas.clientWidth / 2, canvas.clientHeight / 2]) {
  const before = view.zoom, acrossX = x / canvas.clientWidth - 0.5, acrossY = 0.5 - y / canvas.clientHeight;
  view.zoom = Math.max(1, Math.min(40, before * factor));
  const shift = (1 / before - 1 / view.zoom) / 0.46;  // the point under the pointer stays fixed
  view.x += acrossX * shift;
  view.y += acrossY * shift;
  if (view.zoom === 1) view.x = view.y = 0;
  draw();
}

function play(point) {
  at = point;
  toggle(point).then(draw);
  draw();
}

canvas.onwheel = (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), placeOf(event)); };
canvas.onpointerdown = (event) => { canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, placeOf(event)); moved = 0; };
canvas.onpointermove = (event) => {
  const here = placeOf(event), before = fingers.get(event.pointerId);
  if (!before) {
    const point = nearest(here);
    canvas.style.cursor = point ? "pointer" : "grab";
    if (point !== at) { at = point; draw(); }
    return;
  }
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  moved += Math.hypot(here[0] - before[0], here[1] - before[1]);
  if (other) zoom(Math.hypot(here[0] - other[0], here[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), other);
  else if (view.zoom > 1) {
    view.x -= (here[0] - before[0]) / canvas.clientWidth / 0.46 / view.zoom;
    view.y += (here[1] - before[1]) / canvas.clientHeight / 0.46 / view.zoom;
  }
  fingers.set(event.pointerId, here);
  draw();
};
canvas.onpointerup = canvas.onpointercancel = (event) => {
  fingers.delete(event.pointerId);
  const point = moved < 6 && event.type === "pointerup" ? nearest(placeOf(event), 24) : null;
  if (point) play(point);
};
canvas.onpointerleave = () => { if (at) { at = null; draw(); } };
canvas.ondblclick = (event) => zoom(2, placeOf(event));
canvas.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !points?.length) return;
  const towards = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (towards) step(towards);
  else if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "Enter" || event.key === " ") { if (at) play(at); }
  else if (event.key === "m" || event.key === "l") { if (at) steer(at, event.key === "m"); }
  else return;
  event.preventDefault();
  event.stopPropagation();
};

// The nearest dot in a direction; distance across that direction counts more.
function step([dx, dy]) {
  const [x, y] = at ? spot(at) : [canvas.clientWidth / 2, canvas.clientHeight / 2];
  let best = null, least = Infinity;
  for (const point of points) {
    const [px, py] = spot(point), along = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    if (point === at || along <= 0.5 || (only && point.tag !== only)) continue;
    const distance = along + 2 * aside;
    if (distance < least) [least, best] = [distance, point];
  }
  if (best) { at = best; draw(); }
}

addEventListener("resize", draw);
$("audio").addEventListener("play", draw);
