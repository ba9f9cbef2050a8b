// HTTP to the page's own server.

// What the server says no with (RFC 9457).
export class Problem extends Error {
  constructor(status, { title, detail, field }) {
    super([title ?? `Status ${status}`, detail].filter(Boolean).join(": "));
    this.status = status;
    this.field = field;
    this.reason = (detail ?? this.message).replace(`${field}: `, ""); // for where the field itself is seen
  }
}

// Both throw a Problem when refused, another error when there is no answer.

export function post(path, body) {
  const headers = { "content-type": "application/json" };
  return answerTo(path, { method: "POST", headers, body });
}

export function get(path, parameters = {}, headers = {}) {
  return answerTo(`${path}?${new URLSearchParams(parameters)}`, { headers });
}

// A fresh token each time: the last one may have expired, or be of an earlier run of the server.
export async function tokenOf(user) {
  return (await post("/dev/token", JSON.stringify({ user }))).token;
}

async function answerTo(path, request) {
  const response = await fetch(path, request);
  if (response.ok) return parse(await response.text());
  throw new Problem(response.status, await response.json().catch(() => ({})));
}

// Parse JSON, and keep whole numbers as they are written: JavaScript would round those beyond 2^53.
export function parse(text) {
  return JSON.parse(text, (_key, value, { source } = {}) => {
    const isLong = typeof value === "number" && !Number.isSafeInteger(value);
    return isLong && JSON.rawJSON && /^-?\d+$/.test(source) ? JSON.rawJSON(source) : value;
  });
}
