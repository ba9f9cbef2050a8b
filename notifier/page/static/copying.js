// The request that the form would send, to be pasted elsewhere.

import { part } from "./dom.js";
import { Problem, get } from "./http.js";
import { eventBody, forgetResult, showSent } from "./sending.js";
import { SNIPPETS } from "./snippets.js";

export async function copyAs({ dataset, textContent: title }) {
  forgetResult();
  const body = eventBody(part("send"));
  if (body === null) return;
  try {
    const { port, needs_key: isKeyed } = await get("/dev/api-port");
    const url = `http://${location.hostname}:${port}/v1/events`;
    const done = await offer(SNIPPETS[dataset.as]({ url, isKeyed }, body));
    const key = isKeyed ? " It takes the API key from NOTIFIER_API_KEY." : "";
    showSent(`${done} as ${title}.${key}`);
  } catch (error) {
    showSent(error instanceof Problem ? error.message : "The server does not answer.", true);
  }
}

// Browsers let a page copy where its address is this machine's or secure, unless they were told
// otherwise. Elsewhere the text is shown and selected.
async function offer(text) {
  try {
    await navigator.clipboard.writeText(text);
    return "Copied";
  } catch {
    const shown = part("snippet");
    shown.hidden = false;
    shown.textContent = text;
    shown.focus();
    getSelection().selectAllChildren(shown);
    return "Press Ctrl+C to copy the selected text";
  }
}
