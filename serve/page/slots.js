// The parsed query: one chip per slot, with buttons that remove the slot or invert it.
// A button edits the query's text, so that the text stays the only state.

import { make } from "./api.js";

// `search` is called with the query's text without a slot, or with the slot inverted.
export function slots(query, search) {
  const shown = [];
  const chip = (className, label, words, inverted) => {
    const node = make("span", `slot ${className}`);
    node.append(make("span", "", label));
    node.title = `from “${words}”`;
    if (inverted) node.append(button("⇄", `Invert: ${label}`, () => search(joined(without(query.text, words), inverted))));
    node.append(button("×", `Remove: ${label}`, () => search(without(query.text, words))));
    shown.push(node);
  };
  for (const { title, artist, positive, words } of query.kind === "similar" ? query.anchors : []) {
    const name = [title, artist].filter(Boolean).join(" by ");
    chip(positive ? "has" : "not", `${positive ? "like" : "not like"} ${name}`, words, `${positive ? "not like" : "like"} ${name}`);
  }
  for (const { term, tags, words } of query.include) {
    chip("has", tags.length > 1 ? `${term}: ${tags.slice(0, 4).join(", ")}` : tags[0] || term, words, `no ${term}`);
  }
  for (const { term, words } of query.exclude) chip("not", `without ${term}`, words, term);
  for (const { where, words } of query.filters) chip("has", `${words}: ${where}`, words);
  for (const { words } of query.directions) chip("has", words, words);
  for (const { words, taken_for } of query.corrected) shown.push(make("span", "slot note", `${words} → ${taken_for}`));
  for (const { words, why } of query.ignored) shown.push(make("span", "slot note", `ignored “${words}”: ${why}`));
  for (const { did_you_mean, relax, hits } of query.suggestions) {
    const label = relax ? `without “${relax}”: ${hits} hits` : `did you mean ${did_you_mean}?`;
    const node = button(label, label, () => search(relax ? without(query.text, relax) : did_you_mean));
    node.className = "slot";
    shown.push(node);
  }
  return shown;
}

function button(text, label, press) {
  const node = make("button", "", text);
  node.type = "button";
  node.setAttribute("aria-label", label);
  node.onclick = press;
  return node;
}

// The query's text without some words, and without the commas and conjunctions left over.
export function without(text, words) {
  const at = text.toLowerCase().indexOf(words.toLowerCase());
  if (at < 0) return text;
  const left = `${text.slice(0, at)} ${text.slice(at + words.length)}`;
  return left.replace(/\s+/g, " ").replace(/\s+,/g, ",").replace(/,(\s*,)+/g, ",")
    .replace(/^[\s,]*((and|but|or|with)\s+)?/i, "").replace(/[\s,]*(\s(and|but|or|with))?[\s,]*$/i, "");
}

const joined = (text, more) => [text, more].filter(Boolean).join(", ");
