// The player: one track at a time, from its best segment; all its progress bars are updated.

import { $, make, soundOf } from "./api.js";

const audio = $("audio");
let current = null;  // {track_id, title, artist, segment?, duration?, sound?: a URL}
let failed = () => {};

export const playing = () => current;

export function onFailure(tell) { failed = tell; }

export function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

export async function toggle(track) {
  if (current?.track_id === track.track_id) {
    if (audio.paused) audio.play(); else audio.pause();
    return;
  }
  audio.pause();
  for (const line of barsOf(current)) line.querySelector(".now").style.width = 0;
  current = track;
  try {
    const sound = track.sound || (await soundOf(track.track_id));
    if (current !== track) return;
    if (audio.src.startsWith("blob:")) URL.revokeObjectURL(audio.src);
    audio.src = sound;
    await audio.play();
  } catch (error) {
    if (error.name === "AbortError" || current !== track) return;  // another track was started
    current = null;
    failed(`${track.title || track.track_id} cannot be played: ${await whyNot(track, error)}`);
  }
  show();
}

// A media element reports no reason, so the endpoint is asked for its error.
async function whyNot(track, error) {
  const path = `/v1/tracks/${encodeURIComponent(track.track_id)}/audio`;
  const answer = await fetch(path, { headers: { Range: "bytes=0-0" } }).catch(() => null);
  if (!answer || answer.ok) return error.message;
  return (await answer.json().catch(() => ({}))).detail || error.message;
}

export function seek(by) {
  if (current && audio.duration) audio.currentTime = Math.max(0, Math.min(audio.duration, audio.currentTime + by));
}

// The progress bar of a track, with the best segment marked. A click seeks.
export function bar(track) {
  const line = make("div", "bar");
  line.append(make("div", "best"), make("div", "now"));
  line.dataset.track = track.track_id;
  place(line, track, track.duration);
  line.onclick = (event) => follow(event, line, track);
  return line;
}

async function follow(event, line, track) {
  const box = line.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
  if (current?.track_id !== track.track_id) await toggle(track);
  if (audio.readyState >= 1) audio.currentTime = audio.duration * share;
  else audio.addEventListener("loadedmetadata", () => { audio.currentTime = audio.duration * share; }, { once: true });
}

function place(line, track, duration) {
  const best = line.querySelector(".best"), segment = track.segment;
  best.hidden = !segment || !duration;
  if (best.hidden) return;
  best.style.left = `${100 * Math.min(1, segment.start_s / duration)}%`;
  best.style.width = `${100 * Math.min(1, (segment.end_s - segment.start_s) / duration)}%`;
}

audio.onloadedmetadata = () => {
  const start = current?.segment?.start_s;
  if (start && start < audio.duration) audio.currentTime = start;
  for (const line of barsOf(current)) place(line, current, audio.duration);
};

const barsOf = (track) => [...document.querySelectorAll(".bar")].filter((line) => track && line.dataset.track === track.track_id);

export function show() {
  const sounds = current && !audio.paused && !audio.ended;
  for (const button of document.querySelectorAll("button.play")) {
    const mine = current && (button.dataset.track === current.track_id || button === $("pause"));
    button.textContent = mine && sounds ? "❚❚" : "▶";
    button.setAttribute("aria-label", `${mine && sounds ? "Pause" : "Play"} ${button.dataset.title || ""}`);
    button.closest("li")?.classList.toggle("playing", Boolean(mine));
  }
  $("player").hidden = !current;
  document.body.classList.toggle("with-player", Boolean(current));
  if (!current) return;
  $("now-title").textContent = current.title || current.track_id;
  $("now-by").textContent = current.artist || "";
  $("seek").dataset.track = current.track_id;
  place($("seek"), current, audio.duration || current.duration);
}

audio.onplay = audio.onpause = audio.onended = show;
audio.ontimeupdate = () => {
  if (!current || !audio.duration) return;
  for (const line of barsOf(current)) line.querySelector(".now").style.width = `${100 * audio.currentTime / audio.duration}%`;
  $("clock").textContent = `${clock(audio.currentTime)} / ${clock(audio.duration)}`;
};
$("pause").onclick = () => current && toggle(current);
$("seek").onclick = (event) => current && follow(event, $("seek"), current);
