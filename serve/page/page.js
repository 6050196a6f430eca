// The search page, without framework or build step. `state` is the query; the page renders it.

import { $, api, make, post } from "./api.js";
import { facets, row } from "./hits.js";
import * as maker from "./make.js";
import * as map from "./map.js";
import * as player from "./player.js";
import { slots } from "./slots.js";

const FETCHED = 48, SHOWN = 12;  // hits of one request: for the facets and the next pages
const EXAMPLES = ["rainy-day piano, no vocals", "upbeat funk with brass", "slow and dreamy strings"];
const state = { like: new Map(), unlike: new Map(), filters: new Map(), audio: null, cursor: null, hits: [], shown: 0, at: -1, run: 0 };
const say = (text) => { $("note").textContent = text; };

function requestBody() {
  const ids = (tracks) => [...tracks.keys()];
  const where = [$("where").value.trim(), ...state.filters.keys()].filter(Boolean);
  const body = { k: FETCHED, diversity: Number($("diversity").value) };
  if ($("text").value.trim()) body.text = $("text").value;
  if (state.like.size) body.like = ids(state.like);
  if (state.unlike.size) body.unlike = ids(state.unlike);
  if (state.audio) body.audio = { data: state.audio.data };
  if (where.length) body.where = where.map((clause) => (where.length > 1 ? `(${clause})` : clause)).join(" and ");
  if ($("cap").checked) body.per_artist = 1;
  return body;
}

async function search(more = false) {
  const body = requestBody(), run = ++state.run;
  remember();
  if (!body.text && !body.like && !body.audio) {
    clear();
    if (body.unlike || body.where) say("Add a text, a track or a recording to search for.");
    return;
  }
  if (more) body.cursor = state.cursor;
  document.body.classList.add("busy");
  try {
    const answer = await (await post("/v1/search", body)).json();
    if (run !== state.run) return;
    if (!more) clear();
    state.hits.push(...answer.hits);
    state.cursor = answer.next_cursor;
    $("welcome").hidden = true;
    chips(answer.query);
    narrow();
    showMore();
    say(state.hits.length ? `${Math.round(answer.took_ms.total)} ms` : "No hits. Loosen the filter, or use other words.");
    map.mark(state.hits.slice(0, state.shown));
    if (!more) maker.offer(body.text, say).catch((error) => say(error.message));
  } catch (error) {
    if (run !== state.run) return;
    chips(null);
    say(error.message);
  } finally {
    if (run === state.run) document.body.classList.remove("busy");
  }
}

function clear() {
  Object.assign(state, { hits: [], shown: 0, at: -1, cursor: null });
  $("hits").replaceChildren();
  $("facets").replaceChildren();
  $("more").hidden = true;
  maker.withdraw();
  $("welcome").hidden = false;
  say("");
  chips(null);
}

function showMore() {
  for (const hit of state.hits.slice(state.shown, state.shown + SHOWN)) $("hits").append(row(hit, steer));
  state.shown = Math.min(state.hits.length, state.shown + SHOWN);
  $("more").hidden = state.shown === state.hits.length && !state.cursor;
  player.show();
}

function chips(query) {
  const shown = [];
  if (query?.text) {
    const name = [query.title, query.artist].filter(Boolean).join(" by ");
    shown.push(make("span", "", name ? `${query.kind}: ${name}` : query.kind));
  }
  $("slots").replaceChildren(...(query?.text ? slots(query, (text) => { $("text").value = text; search(); }) : []));
  const removable = (text, drop) => {
    const chip = make("button", "", `${text} ×`);
    chip.setAttribute("aria-label", `Remove: ${text}`);
    chip.onclick = () => { drop(); search(); };
    shown.push(chip);
  };
  for (const [id, name] of state.like) removable(`more like ${name}`, () => state.like.delete(id));
  for (const [id, name] of state.unlike) removable(`less like ${name}`, () => state.unlike.delete(id));
  if (state.audio) removable(`sounds like ${state.audio.name}`, () => { state.audio = null; });
  for (const [clause, label] of state.filters) removable(`only ${label}`, () => state.filters.delete(clause));
  if (state.like.size === 2) shown.push(playlist([...state.like.keys()]));
  $("chips").replaceChildren(...shown);
}

function playlist([from, to]) {
  const chip = make("button", "", "playlist between the two ↓");
  chip.onclick = async () => {
    const parameters = new URLSearchParams({ from, to, n: 12, format: "m3u" });
    try {
      const file = await (await api(`/v1/playlist?${parameters}`)).blob(), link = make("a");
      link.href = URL.createObjectURL(file);
      link.download = "playlist.m3u8";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    } catch (error) { say(error.message); }
  };
  return chip;
}

function narrow() {
  const open = facets(state.hits).filter((facet) => !state.filters.has(facet.clause));
  $("facets").replaceChildren(...open.map(({ label, clause, count }) => {
    const chip = make("button", "", `${label} `);
    chip.append(make("small", "", count));
    chip.onclick = () => { state.filters.set(clause, label); search(); };
    return chip;
  }));
}

function steer(hit, like) {
  const [into, outOf] = like ? [state.like, state.unlike] : [state.unlike, state.like];
  outOf.delete(hit.track_id);
  into.set(hit.track_id, hit.title || hit.track_id);
  search();
}

function move(to) {
  if (!state.shown) return;
  state.at = Math.max(0, Math.min(state.shown - 1, to));
  [...$("hits").children].forEach((line, index) => line.classList.toggle("at", index === state.at));
  $("hits").children[state.at].focus({ preventScroll: true });
  $("hits").children[state.at].scrollIntoView({ block: "nearest" });
}

document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("ask-key").open) return;
  const typing = event.target.matches("input:not([type=range], [type=checkbox], [type=file])");
  if (event.key === "/" && !typing) { event.preventDefault(); $("text").select(); return; }
  if (event.key === "Escape") { event.target.blur(); return; }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && !event.target.matches("[type=range]")) { event.preventDefault(); move(state.at + step); return; }
  if (typing || event.target.matches("button, input")) return;
  const aside = { ArrowRight: 5, ArrowLeft: -5 }[event.key], hit = state.hits[state.at];
  if (aside) player.seek(aside);
  if (event.key === " " && (hit || player.playing())) { event.preventDefault(); player.toggle(hit || player.playing()); }
  if (event.key === "m" && hit) steer(hit, true);
  if (event.key === "l" && hit) steer(hit, false);
};
$("hits").onmousedown = (event) => {
  const line = event.target.closest("li");
  if (line && !event.target.closest("button, .bar")) move([...$("hits").children].indexOf(line));
};

function take(file) {
  if (!file) return;
  const reader = new FileReader();
  reader.onload = () => { state.audio = { name: file.name, data: reader.result.split(",")[1] || "" }; search(); };
  reader.onerror = () => say(`${file.name} cannot be read.`);
  reader.readAsDataURL(file);
}
$("file").onchange = (event) => { take(event.target.files[0]); event.target.value = ""; };
document.ondragover = (event) => { event.preventDefault(); document.body.classList.add("dragging"); };
document.ondragleave = (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); };
document.ondrop = (event) => { event.preventDefault(); document.body.classList.remove("dragging"); take(event.dataTransfer.files[0]); };

$("show-map").onclick = async () => {
  const opens = $("atlas").hidden;
  $("atlas").hidden = !opens;
  $("show-map").setAttribute("aria-expanded", String(opens));
  if (opens) await map.open(state.hits.slice(0, state.shown), steer).catch((error) => say(error.message));
};
$("form").onsubmit = (event) => { event.preventDefault(); search(); };
for (const id of ["where", "diversity", "cap"]) $(id).onchange = () => search();
$("more").onclick = () => (state.shown < state.hits.length ? showMore() : search(true));
player.onFailure(say);

$("examples").append(...EXAMPLES.map((text) => {
  const chip = make("button", "", text);
  chip.onclick = () => { $("text").value = text; search(); };
  return chip;
}));

// The URL contains the text and the filter, so that a search can be bookmarked and shared.
function remember() {
  const kept = new URLSearchParams(Object.entries({ q: $("text").value.trim(), where: $("where").value.trim() }).filter(([, text]) => text));
  history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname);
}
function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const [name, id] of [["q", "text"], ["where", "where"]]) $(id).value = kept.get(name) || "";
  if (kept.has("q")) search();
}
addEventListener("hashchange", recall);
recall();
