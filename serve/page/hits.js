// A row of the hit list: metadata, reasons, the best segment, and buttons for more or less like it.

import { make } from "./api.js";
import { bar, clock, toggle } from "./player.js";

const REASONS = { sound: "similar sound", text: "sounds like the text", words: "words match", names: "name matches" };

export function row(hit, steer) {
  const line = make("li");
  line.tabIndex = -1;
  const play = make("button", "play", "▶");
  play.dataset.track = hit.track_id;
  play.dataset.title = hit.title || hit.track_id;
  play.setAttribute("aria-label", `Play ${play.dataset.title}`);
  play.onclick = () => toggle(hit);
  line.append(play, words(hit), steering(hit, steer));
  if (hit.segment || hit.duration) line.append(times(hit));
  return line;
}

function words(hit) {
  const node = make("div", "words");
  node.append(make("div", "title", hit.title || hit.track_id));
  node.append(make("div", "by", [hit.artist, hit.album, hit.year].filter(Boolean).join(" · ")));
  const matched = new Set(hit.why.flatMap((reason) => reason.matched || []));
  const why = make("div", "why");
  for (const tag of [...matched, ...(hit.tags || []).filter((tag) => !matched.has(tag))].slice(0, 6)) {
    why.append(make("span", matched.has(tag) ? "tag matched" : "tag", tag), " ");
  }
  const reasons = hit.why.filter((reason) => reason.rank);
  const because = make("span", "because", reasons.map((reason) => REASONS[reason.by] || reason.by).join(", "));
  because.title = reasons.map((reason) => `${reason.by}: number ${reason.rank}`).join(", ");
  why.append(because);
  for (const reason of hit.why.filter((reason) => reason.by === "unknown")) {
    why.append(" ", make("span", "because", `${Object.keys(reason.columns).join(", ")} unknown`));
  }
  node.append(why);
  return node;
}

function steering(hit, steer) {
  const node = make("div", "steer");
  for (const [sign, like, label] of [["+", true, "More like this"], ["−", false, "Less like this"]]) {
    const button = make("button", "", sign);
    button.title = label;
    button.setAttribute("aria-label", `${label}: ${hit.title || hit.track_id}`);
    button.onclick = () => steer(hit, like);
    node.append(button);
  }
  return node;
}

function times(hit) {
  const node = make("div", "times");
  node.append(bar(hit));
  if (hit.segment) {
    const best = make("span", "by", `best at ${clock(hit.segment.start_s)}`);
    best.title = `${clock(hit.segment.start_s)} to ${clock(hit.segment.end_s)}`;
    node.append(best);
  } else node.append(make("span", "by", clock(hit.duration)));
  return node;
}

// Facets: values that several hits share, as filters {label, clause, count}.
export function facets(hits) {
  const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
  const counts = new Map();
  const count = (label, clause) => {
    const entry = counts.get(clause) || { label, clause, count: 0 };
    entry.count += 1;
    counts.set(clause, entry);
  };
  for (const hit of hits) {
    for (const tag of new Set(hit.tags || [])) count(tag, `tags has ${quoted(tag)}`);
    if (hit.artist) count(hit.artist, `artist = ${quoted(hit.artist)}`);
    if (hit.year) {
      const decade = 10 * Math.floor(hit.year / 10);
      count(`${decade}s`, `(year >= ${decade} and year < ${decade + 10})`);
    }
  }
  const splits = [...counts.values()].filter((facet) => facet.count > 1 && facet.count < hits.length);
  const most = (start, number) => splits.filter((f) => f.clause.startsWith(start)).sort((a, b) => b.count - a.count).slice(0, number);
  return [...most("tags", 8), ...most("artist", 3), ...most("(year", 4).sort((a, b) => (a.label < b.label ? -1 : 1))];
}
