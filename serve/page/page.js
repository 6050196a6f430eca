// The search page: no framework, no build. State is what was asked; everything shown follows it.
// Text from the catalog only ever enters the page through textContent.
"use strict";
const $ = (id) => document.getElementById(id);
const state = { like: new Map(), unlike: new Map(), audio: null, cursor: null, hits: [], at: -1, run: 0 };
const audio = $("audio");
let playing = null;

async function api(path, options = {}, asked = false) {
  const key = sessionStorage.getItem("key");
  const headers = { ...(options.headers || {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401 && !asked) {
    const given = prompt("API key");
    if (given) { sessionStorage.setItem("key", given.trim()); return api(path, options, true); }
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.detail || `The endpoint answered ${answer.status}.`);
  }
  return answer;
}

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text != null) node.textContent = text;
  return node;
}

function question() {
  const list = (map) => [...map.keys()].map((track_id) => ({ track_id }));
  const body = { k: 12, diversity: Number($("diversity").value) };
  if ($("text").value.trim()) body.text = $("text").value;
  if (state.like.size) body.like = list(state.like);
  if (state.unlike.size) body.unlike = list(state.unlike);
  if (state.audio) body.audio = { data: state.audio.data };
  if ($("where").value.trim()) body.where = $("where").value;
  if ($("cap").checked) body.per_artist = 1;
  return body;
}

async function search(more = false) {
  const body = question();
  if (!body.text && !body.like && !body.audio) { chips(); return; }
  if (more) body.cursor = state.cursor;
  const run = ++state.run;
  try {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const answer = await (await api("/v1/search", options)).json();
    if (run !== state.run) return;
    if (!more) { state.hits = []; state.at = -1; $("hits").replaceChildren(); }
    for (const hit of answer.hits) { state.hits.push(hit); $("hits").append(row(hit)); }
    state.cursor = answer.next_cursor;
    $("more").hidden = !state.cursor;
    $("note").textContent = state.hits.length ? `${Math.round(answer.took_ms.total)} ms` : "Nothing matches. Loosen the filter, or say it in other words.";
    chips(answer.query); facets();
  } catch (error) { if (run === state.run) $("note").textContent = error.message; }
}

function chips(query) {
  const shown = [];
  if (query && query.text) {
    const name = [query.title, query.artist].filter(Boolean).join(" by ");
    shown.push(make("span", "", query.kind + (name ? `: ${name}` : "")));
    if (query.description && name) shown.push(make("span", "", query.description));
    for (const term of [...query.exclude, ...query.understood_exclude]) shown.push(make("span", "", `without ${term}`));
  }
  const removable = (text, drop) => {
    const chip = make("button", "", `${text} ×`);
    chip.onclick = () => { drop(); search(); };
    shown.push(chip);
  };
  for (const [id, name] of state.like) removable(`more like ${name}`, () => state.like.delete(id));
  for (const [id, name] of state.unlike) removable(`less like ${name}`, () => state.unlike.delete(id));
  if (state.audio) removable(`sounds like ${state.audio.name}`, () => { state.audio = null; });
  $("chips").replaceChildren(...shown);
}

function facets() {  // artists of the hits shown, to narrow down with
  const counts = new Map();
  for (const hit of state.hits) if (hit.artist) counts.set(hit.artist, (counts.get(hit.artist) || 0) + 1);
  const most = [...counts].filter(([, count]) => count > 1).sort((a, b) => b[1] - a[1]).slice(0, 6);
  $("facets").replaceChildren(...most.map(([artist, count]) => {
    const chip = make("button", "", `${artist} ${count}`);
    chip.onclick = () => { $("where").value = `artist = '${artist.replaceAll("'", "''")}'`; search(); };
    return chip;
  }));
}

function row(hit) {
  const line = make("li");
  line.tabIndex = -1;
  const play = make("button", "play", "▶");
  play.setAttribute("aria-label", `Play ${hit.title || hit.track_id}`);
  play.onclick = () => toggle(hit, line);
  const words = make("div");
  words.append(make("div", "title", hit.title || hit.track_id), make("div", "by", [hit.artist, hit.album].filter(Boolean).join(" · ")));
  const why = hit.why.map((w) => (w.matched ? w.matched.join(", ") : `${w.by} #${w.rank}`)).join("  ·  ");
  words.append(make("div", "why", why));
  const steering = make("div", "steer");
  for (const [sign, map, other, label] of [["+", state.like, state.unlike, "More like this"], ["−", state.unlike, state.like, "Less like this"]]) {
    const button = make("button", "", sign);
    button.title = label;
    button.setAttribute("aria-label", label);
    button.onclick = () => steer(hit, map, other);
    steering.append(button);
  }
  line.append(play, words, steering);
  if (hit.segment) {
    const bar = make("div", "bar"), best = make("div", "best");
    bar.append(best, make("div", "now"));
    const place = (length) => {
      best.style.left = `${100 * hit.segment.start_s / length}%`;
      best.style.width = `${100 * Math.min(1, (hit.segment.end_s - hit.segment.start_s) / length)}%`;
    };
    place(Math.max(hit.segment.end_s * 1.25, 30));
    line.place = place;
    bar.onclick = (event) => {
      if (playing !== line) { toggle(hit, line); return; }
      const box = bar.getBoundingClientRect();
      audio.currentTime = audio.duration * (event.clientX - box.left) / box.width;
    };
    line.append(bar);
  }
  line.onmousedown = () => move(state.hits.indexOf(hit));
  return line;
}

function steer(hit, map, other) {
  other.delete(hit.track_id);
  map.set(hit.track_id, hit.title || hit.track_id);
  if (map === state.unlike && !question().text && !state.like.size && !state.audio) {
    $("note").textContent = "Say first what to be near to.";
  }
  search();
}

async function toggle(hit, line) {
  if (playing === line) { audio.paused ? audio.play() : audio.pause(); return; }
  if (playing) { audio.pause(); playing.classList.remove("playing"); playing.querySelector(".play").textContent = "▶"; }
  playing = line;
  const path = `/v1/tracks/${encodeURIComponent(hit.track_id)}/audio`;
  try {
    if (audio.src.startsWith("blob:")) URL.revokeObjectURL(audio.src);
    const keyed = sessionStorage.getItem("key");
    audio.src = keyed ? URL.createObjectURL(await (await api(path)).blob()) : path;
    audio.onloadedmetadata = () => {
      if (line.place) line.place(audio.duration);
      if (hit.segment && hit.segment.start_s < audio.duration) audio.currentTime = hit.segment.start_s;
    };
    await audio.play();
  } catch (error) { $("note").textContent = `This track cannot be played: ${error.message}`; }
}
const showPlaying = () => { if (playing) { playing.classList.toggle("playing", !audio.paused); playing.querySelector(".play").textContent = audio.paused ? "▶" : "❚❚"; } };
audio.onplay = audio.onpause = audio.onended = showPlaying;
audio.ontimeupdate = () => { const now = playing && playing.querySelector(".now"); if (now && audio.duration) now.style.width = `${100 * audio.currentTime / audio.duration}%`; };

function move(to) {
  if (!state.hits.length) return;
  state.at = Math.max(0, Math.min(state.hits.length - 1, to));
  [...$("hits").children].forEach((line, index) => line.classList.toggle("at", index === state.at));
}

document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=range]):not([type=checkbox])");
  if (event.key === "/" && !typing) { event.preventDefault(); $("text").select(); return; }
  if (event.key === "Escape") { event.target.blur(); return; }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    event.preventDefault(); event.target.blur(); move(state.at + step);
    if (state.at >= 0) $("hits").children[state.at].scrollIntoView({ block: "nearest" });
    return;
  }
  if (typing || event.target.matches("button") || state.at < 0) return;
  const hit = state.hits[state.at];
  if (event.key === " ") { event.preventDefault(); toggle(hit, $("hits").children[state.at]); }
  if (event.key === "m") steer(hit, state.like, state.unlike);
  if (event.key === "l") steer(hit, state.unlike, state.like);
};

function take(file) {
  if (!file) return;
  const reader = new FileReader();
  reader.onload = () => { state.audio = { name: file.name, data: reader.result.split(",")[1] || "" }; chips(); search(); };
  reader.readAsDataURL(file);
}
$("file").onchange = (event) => { take(event.target.files[0]); event.target.value = ""; };
document.ondragover = (event) => { event.preventDefault(); document.body.classList.add("dragging"); };
document.ondragleave = () => document.body.classList.remove("dragging");
document.ondrop = (event) => { event.preventDefault(); document.body.classList.remove("dragging"); take(event.dataTransfer.files[0]); };

let points = [];
async function showMap() {
  const canvas = $("map");
  canvas.hidden = $("map-name").hidden = !canvas.hidden;
  if (canvas.hidden) return;
  if (!points.length) points = (await (await api("/v1/map")).json()).points;
  draw();
}
const spot = (p) => [(p.x * 0.46 + 0.5) * $("map").clientWidth, (0.5 - p.y * 0.46) * $("map").clientHeight];
function draw() {
  const canvas = $("map"), pen = canvas.getContext("2d"), scale = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * scale; canvas.height = canvas.clientHeight * scale;
  pen.scale(scale, scale);
  const tags = [...new Set(points.map((p) => p.tag))];
  const found = new Set(state.hits.map((hit) => hit.track_id));
  for (const p of points) {
    pen.fillStyle = `hsl(${360 * tags.indexOf(p.tag) / tags.length} 45% 55%)`;
    pen.globalAlpha = found.has(p.track_id) ? 1 : 0.55;
    pen.beginPath(); pen.arc(...spot(p), found.has(p.track_id) ? 6 : 3, 0, 7); pen.fill();
  }
}
function nearest(event) {
  const box = $("map").getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  let best = null, least = 400;
  for (const p of points) { const [px, py] = spot(p), d = (px - x) ** 2 + (py - y) ** 2; if (d < least) { least = d; best = p; } }
  return best;
}
$("map").onmousemove = (event) => { const p = nearest(event); $("map-name").textContent = p ? [p.artist, p.title, p.tag].filter(Boolean).join(" · ") : ""; };
$("map").onclick = (event) => { const p = nearest(event); if (p) { state.like.clear(); steer(p, state.like, state.unlike); } };
$("show-map").onclick = () => showMap().catch((error) => { $("note").textContent = error.message; });

$("form").onsubmit = (event) => { event.preventDefault(); remember(); search(); };
for (const id of ["where", "diversity", "cap"]) $(id).onchange = () => search();
$("more").onclick = () => search(true);
const remember = () => history.replaceState(null, "", $("text").value ? `#${encodeURIComponent($("text").value)}` : location.pathname);
if (location.hash.length > 1) { $("text").value = decodeURIComponent(location.hash.slice(1)); search(); }
