// "Make something like this": generates a clip from the query's text, if the endpoint has a model.

import { $, api, post } from "./api.js";
import { toggle } from "./player.js";

const button = $("make"), SECONDS = 10;
let generation = null, made = 0;

// Shows the button for a query with text; `say` displays the progress and errors.
export async function offer(text, say) {
  button.hidden = true;
  if (!text) return;
  generation ??= (await (await api("/v1/generate")).json());
  button.hidden = !generation.on;
  button.onclick = () => make(text, say);
}

export function withdraw() { button.hidden = true; }

async function make(text, say) {
  button.disabled = true;
  say("Generating a clip. It is generated audio, not a recording.");
  try {
    const seconds = Math.min(SECONDS, generation.most_seconds), seed = made++;
    const file = await (await post("/v1/generate", { text, seconds, seed })).blob();
    say("");
    await toggle({ track_id: `generated ${seed}`, title: text, artist: "generated, not a recording", duration: seconds, sound: URL.createObjectURL(file) });
  } catch (error) {
    say(error.message);
  } finally {
    button.disabled = false;
  }
}
