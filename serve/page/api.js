// Requests to the endpoint, with this tab's API key if one is required. Problems become errors.

export const $ = (id) => document.getElementById(id);

export function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text != null) node.textContent = text;  // never innerHTML: titles are untrusted text
  return node;
}

export async function api(path, options = {}, retried = false) {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401 && !retried && (await askForKey())) return api(path, options, true);
  if (answer.status === 401) {
    sessionStorage.removeItem("key");
    throw new Error("This API key is not valid here.");
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.detail || `The endpoint returned status ${answer.status}.`);
  }
  return answer;
}

export function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return api(path, { method: "POST", headers, body: JSON.stringify(body) });
}

// A media element cannot send a key. So with a key, the whole file is fetched first.
export async function soundOf(trackId) {
  const path = `/v1/tracks/${encodeURIComponent(trackId)}/audio`;
  if (!sessionStorage.getItem("key")) return path;
  return URL.createObjectURL(await (await api(path)).blob());
}

let asking = null;
function askForKey() {
  asking ??= new Promise((done) => {
    const dialog = $("ask-key");
    dialog.onclose = () => {
      const given = $("key").value.trim();
      if (given) sessionStorage.setItem("key", given);
      $("key").value = "";
      asking = null;
      done(Boolean(given));
    };
    dialog.showModal();
  });
  return asking;
}
