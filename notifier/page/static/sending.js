// The form that posts an event.

import { adviseOn, forgetAdvice } from "./advice.js";
import { part, refuseField, showFieldError } from "./dom.js";
import { Problem, post } from "./http.js";

export async function sendEvent(form) {
  const { audience, name } = Object.fromEntries(new FormData(form));
  forgetResult();
  const body = eventBody(form);
  if (body === null) return;
  try {
    const { id } = await post("/dev/api/v1/events", body);
    showSent(`Accepted: ${id}`);
    await adviseOn(audience, name);
  } catch (error) {
    if (error instanceof Problem) showRefusal(error);
    else showSent("The server does not answer.", true);
  }
}

export function showAudience(user) {
  const audience = new FormData(part("send")).get("audience");
  part("name-row").hidden = audience === "everyone";
  part("name-label").textContent = audience === "topic" ? "To topic" : "To user";
  part("name").value = audience === "user" ? (user ?? "") : "";
  showFieldError("name", "");
}

export function forgetResult() {
  showSent("");
  forgetAdvice();
  part("snippet").hidden = true;
}

// An error at a field goes once the field is mended; the server alone knows whether a name is good.
export function edited({ target }) {
  if (target.id === "data" ? !jsonFault(target.value) : target.value) showFieldError(target.id, "");
}

export function connectionOpened() {
  if (part("sent").classList.contains("failed")) showSent("");
}

// JSON, or null when a field is wrong, which is then told at the field.
export function eventBody(form) {
  const { audience, name, type, data } = Object.fromEntries(new FormData(form));
  const faults = {
    name: audience !== "everyone" && !name ? `Name the ${audience}.` : "",
    type: type ? "" : "Give the event a type.",
    data: jsonFault(data),
  };
  for (const [id, fault] of Object.entries(faults)) showFieldError(id, fault);
  const first = Object.keys(faults).find((id) => faults[id]);
  if (first) part(first).focus();
  return first ? null : encodeEvent({ ...audienceOf(audience, name), type }, data);
}

function audienceOf(audience, name) {
  if (audience === "everyone") return { everyone: true };
  return audience === "user" ? { users: [name] } : { topic: name };
}

// The data goes out as it was typed: parsed and encoded anew, a large number would lose digits.
function encodeEvent(event, data) {
  const text = JSON.stringify(event);
  return data.trim() ? `${text.slice(0, -1)},"data":${data}}` : text;
}

function jsonFault(text) {
  try {
    if (text.trim()) JSON.parse(text);
    return "";
  } catch (error) {
    return `Not valid JSON: ${error.message}`;
  }
}

// Told at the field where the page has it.
function showRefusal(problem) {
  const fields = { "users[0]": "name", topic: "name", type: "type", data: "data" };
  const id = fields[problem.field];
  if (id) refuseField(id, problem.reason);
  else showSent(problem.message, true);
}

export function showSent(text, failed = false) {
  const result = part("sent");
  result.textContent = text;
  result.classList.toggle("failed", failed);
}
