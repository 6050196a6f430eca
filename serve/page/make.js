// "Make something like this": sound from the words of the question, where the endpoint makes any.

import { $, api, post } from "./api.js";
import { toggle } from "./player.js";

const button = $("make"), SECONDS = 10;
let makes = null, made = 0;

// Shown beside the hits of a question with words; `say` tells what goes on.
export async function offer(text, say) {
  button.hidden = true;
  if (!text) return;
  makes ??= (await (await api("/v1/generate")).json());
  button.hidden = !makes.on;
  button.onclick = () => make(text, say);
}

export function withdraw() { button.hidden = true; }

async function make(text, say) {
  button.disabled = true;
  say("Making a sound; it is generated, not a recording.");
  try {
    const seconds = Math.min(SECONDS, makes.most_seconds), seed = made++;
    const file = await (await post("/v1/generate", { text, seconds, seed })).blob();
    say("");
    await toggle({ track_id: `generated ${seed}`, title: text, artist: "generated, not a recording", duration: seconds, sound: URL.createObjectURL(file) });
  } catch (error) {
    say(error.message);
  } finally {
    button.disabled = false;
  }
}
