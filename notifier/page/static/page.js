// The developer page: one WebSocket to /v1/ws, which resumes by itself, and a form to post events.
// Whatever comes from outside is written with textContent only.

const EVENTS_KEPT = 200;
const FRAMES_KEPT = 200;
const BACK_OFF_MS = { least: 500, first: 1_000, most: 20_000 };
const ANNOUNCE_AFTER_MS = 1_000;

const state = {
  user: null,
  phase: "idle", // idle, waiting, open or refused
  socket: null,
  attempt: 0, // grows with each connect and disconnect: an answer to an older one is ignored
  retries: 0, // since the last hello
  timer: null,
  comeBackMs: null, // what a bye frame asked for
  topics: new Map(), // topic → last position, the cursor to resume from
  asked: new Map(), // id → topic of the subscribe frames without an answer yet
  lastId: 0,
  unannounced: 0,
};

const part = (id) => document.getElementById(id);

// ── Signing in ──────────────────────────────────────────────────────────────────────────────────

function signIn(user) {
  forgetSession();
  state.user = user;
  part("user").value = user;
  showAudience();
  connect();
}

function forgetSession() {
  hangUp();
  state.topics.clear();
  state.retries = 0;
  clearEvents();
  part("frames").replaceChildren();
  part("facts").hidden = true;
  for (const id of ["user", "name", "type", "data", "topic"]) showFieldError(id, "");
  showTopics();
}

// The hash, not the query: it stays in the browser, and a second tab may have another user.
function userInUrl() {
  return new URLSearchParams(location.hash.slice(1)).get("user");
}

function rememberUser(user) {
  history.replaceState(null, "", `#user=${encodeURIComponent(user)}`);
  document.title = `${user} · notifier dev`;
}

// ── Connection ──────────────────────────────────────────────────────────────────────────────────

// A fresh token each time: the last one may have expired, or be of an earlier run of the server.
async function connect() {
  hangUp();
  const attempt = state.attempt;
  showState("waiting", "Connecting…");
  try {
    const { token } = await post("/dev/token", JSON.stringify({ user: state.user }));
    if (attempt === state.attempt) openSocket(token);
  } catch (error) {
    if (attempt === state.attempt) tokenFailed(error);
  }
}

function tokenFailed(error) {
  if (!(error instanceof Problem) || error.status >= 500) {
    comeBack("the server does not answer");
    return;
  }
  state.user = null;
  showState("idle", "Signed out");
  showFieldError("user", error.message);
  part("user").focus();
}

function openSocket(token) {
  rememberUser(state.user);
  const socket = new WebSocket(gatewayUrl(), ["notifier.v1", `bearer.${token}`]);
  state.socket = socket;
  socket.onmessage = (message) => socket === state.socket && receive(message.data);
  socket.onclose = (close) => socket === state.socket && closed(close);
}

function gatewayUrl() {
  const url = new URL("/v1/ws", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const further = [...state.topics.keys()].filter((topic) => !followedByItself(topic));
  if (further.length) url.searchParams.set("topics", further.join(","));
  const cursor = [...state.topics].map(([topic, position]) => `${topic}@${position}`);
  if (cursor.length) url.searchParams.set("since", cursor.join(","));
  return url;
}

// 4500–4999 means: not without a change. All else, 1006 and 4001 too, is worth another try.
function closed({ code, reason }) {
  const why = `${reason || (code === 1006 ? "connection lost" : "closed")} (${code})`;
  const comeBackMs = state.comeBackMs;
  hangUp();
  if (code >= 4500 && code <= 4999) showState("refused", `Refused: ${why}`);
  else comeBack(why, comeBackMs);
}

function comeBack(why, askedMs = null) {
  const delay = askedMs ?? jitter(state.retries);
  state.retries += 1;
  state.timer = setTimeout(connect, delay);
  showState("waiting", `Back in ${(delay / 1000).toFixed(1)} s: ${why}`);
}

function jitter(retries) {
  const ceiling = Math.min(BACK_OFF_MS.most, BACK_OFF_MS.first * 2 ** retries);
  return BACK_OFF_MS.least + Math.random() * (ceiling - BACK_OFF_MS.least);
}

function isBusy() {
  return state.phase === "open" || state.phase === "waiting";
}

function hangUp() {
  const socket = state.socket;
  state.attempt += 1;
  state.socket = null;
  state.comeBackMs = null;
  clearTimeout(state.timer);
  state.timer = null;
  if (state.asked.size) showFieldError("topic", "The connection closed before the answer came.");
  state.asked.clear();
  socket?.close(1000);
}

function toggleConnection() {
  state.retries = 0;
  if (!isBusy()) {
    connect();
    return;
  }
  hangUp();
  showState("idle", `Disconnected, signed in as ${state.user}`);
}

// ── Frames ──────────────────────────────────────────────────────────────────────────────────────

function receive(text) {
  logFrame("↓", text);
  const frame = JSON.parse(text);
  switch (frame.type) {
    case "hello": return greeted(frame);
    case "event": return arrived(frame);
    case "gap": return missed(frame);
    case "subscribed": return followed(frame);
    case "unsubscribed": return unfollowed(frame);
    case "error": return complained(frame);
    case "bye": return toldToLeave(frame);
    default: return undefined; // later versions may say more
  }
}

function send(frame) {
  const text = JSON.stringify(frame);
  state.socket.send(text);
  logFrame("↑", text);
}

function greeted(frame) {
  state.retries = 0;
  for (const [topic, start] of Object.entries(frame.topics)) startFrom(topic, start);
  showState("open", `Connected as ${frame.user}`);
  part("session").textContent = frame.session;
  part("heartbeat").textContent = `${frame.heartbeat} s`;
  part("connected").textContent = timeOfDay(frame.time);
  part("facts").hidden = false;
  showTopics();
}

// What was missed, or the gap, is still on its way: our own position stays right until it is here.
function startFrom(topic, { position, resumed }) {
  if (resumed === undefined || !state.topics.has(topic)) state.topics.set(topic, position);
}

function arrived(frame) {
  state.topics.set(frame.topic, frame.position);
  showEvent(frame);
  showTopics();
}

function missed(frame) {
  state.topics.set(frame.topic, frame.position);
  showGap(frame);
  showTopics();
}

function followed(frame) {
  startFrom(frame.topic, frame);
  showTopics();
  if (state.asked.delete(frame.id)) part("topic").value = "";
}

function unfollowed(frame) {
  state.topics.delete(frame.topic);
  showTopics();
}

// Without an id it concerns the whole connection, yet topics are asked for at this field alone.
function complained(frame) {
  state.asked.delete(frame.id);
  showFieldError("topic", frame.message);
}

function toldToLeave(frame) {
  state.comeBackMs = frame.reconnect_after_ms ?? null;
}

// ── Topics ──────────────────────────────────────────────────────────────────────────────────────

function followedByItself(topic) {
  return topic === "everyone" || topic === `user:${state.user}`;
}

function follow(topic) {
  showFieldError("topic", "");
  if (!topic) return refuseField("topic", "Name a topic.");
  if (!isOpen()) return refuseField("topic", "Sign in and connect first.");
  state.lastId += 1;
  state.asked.set(state.lastId, topic);
  send({ type: "subscribe", id: state.lastId, topic });
}

function unfollow(topic) {
  if (!isOpen()) {
    state.topics.delete(topic); // the next connection will not ask for it
    showTopics();
    return;
  }
  state.lastId += 1;
  send({ type: "unsubscribe", id: state.lastId, topic });
}

function isOpen() {
  return state.socket?.readyState === WebSocket.OPEN;
}

// Rows are kept and only their positions change: a redrawn button would lose the keyboard's focus.
function showTopics() {
  const list = part("topics");
  for (const row of [...list.children]) if (!state.topics.has(row.dataset.topic)) dropTopic(row);
  for (const [topic, position] of state.topics) {
    const row = [...list.children].find((one) => one.dataset.topic === topic) ?? addTopic(topic);
    fill(row, { position });
  }
  part("no-topics").hidden = state.topics.size > 0;
}

function addTopic(topic) {
  const row = copyOf("topic-entry");
  fill(row, { name: topic });
  row.dataset.topic = topic;
  const button = row.querySelector("button");
  button.hidden = followedByItself(topic);
  button.setAttribute("aria-label", `Unfollow ${topic}`);
  button.onclick = () => unfollow(topic);
  part("topics").append(row);
  return row;
}

function dropTopic(row) {
  if (row.contains(document.activeElement)) part("topic").focus();
  row.remove();
}

// ── Events ──────────────────────────────────────────────────────────────────────────────────────

function showEvent({ topic, position, event }) {
  const entry = copyOf("event-entry");
  const data = event.data === undefined ? "" : JSON.stringify(event.data, null, 2);
  fill(entry, { type: event.type, topic, position, id: event.id, data });
  stamp(entry, event.time);
  entry.querySelector("pre").hidden = data === "";
  addEntry(entry);
}

function showGap({ topic, position, reason }) {
  const entry = copyOf("gap-entry");
  const text = `Events of this topic were missed and can't be had again (${reason}). ` +
    `It goes on after ${position}. An application would fetch its state anew here.`;
  fill(entry, { topic, text });
  stamp(entry, new Date().toISOString());
  addEntry(entry);
}

function addEntry(entry) {
  part("no-events").hidden = true;
  prependBounded(part("events"), entry, EVENTS_KEPT);
  state.unannounced += 1;
  if (state.unannounced > 1) return;
  part("news").textContent = ""; // the same sentence twice would stay unspoken
  setTimeout(announce, ANNOUNCE_AFTER_MS);
}

// One sentence for a burst: a screen reader shall not read out every event.
function announce() {
  const count = state.unannounced;
  state.unannounced = 0;
  if (count) part("news").textContent = count === 1 ? "1 new event" : `${count} new events`;
}

function clearEvents() {
  part("events").replaceChildren();
  part("news").textContent = "";
  part("no-events").hidden = false;
  state.unannounced = 0;
}

function logFrame(way, text) {
  const entry = copyOf("frame-entry");
  fill(entry, { way, text });
  entry.classList.toggle("out", way === "↑");
  prependBounded(part("frames"), entry, FRAMES_KEPT);
}

// ── Sending ─────────────────────────────────────────────────────────────────────────────────────

async function sendEvent(form) {
  showSent("");
  const body = eventBody(form);
  if (body === null) return;
  try {
    const { id } = await post("/dev/api/v1/events", body);
    showSent(`Accepted: ${id}`);
  } catch (error) {
    if (error instanceof Problem) showRefusal(error);
    else showSent("The server does not answer.", true);
  }
}

// Told at the field where the page has it.
function showRefusal(problem) {
  const fields = { "users[0]": "name", topic: "name", type: "type", data: "data" };
  const id = fields[problem.field];
  if (!id) return showSent(problem.message, true);
  showFieldError(id, problem.reason);
  part(id).focus();
}

// Null when a field is wrong, which is then told at the field.
function eventBody(form) {
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

function showAudience() {
  const audience = new FormData(part("send")).get("audience");
  part("name-row").hidden = audience === "everyone";
  part("name-label").textContent = audience === "topic" ? "To topic" : "To user";
  part("name").value = audience === "user" ? (state.user ?? "") : "";
  showFieldError("name", "");
}

function showSent(text, failed = false) {
  const result = part("sent");
  result.textContent = text;
  result.classList.toggle("failed", failed);
}

// ── HTTP ────────────────────────────────────────────────────────────────────────────────────────

// What the server says no with (RFC 9457).
class Problem extends Error {
  constructor(status, { title, detail, field }) {
    super([title ?? `Status ${status}`, detail].filter(Boolean).join(": "));
    this.status = status;
    this.field = field;
    this.reason = detail?.replace(`${field}: `, ""); // for where the field itself is seen
  }
}

// Throws a Problem when refused, another error when there is no answer.
async function post(path, body) {
  const headers = { "content-type": "application/json" };
  const response = await fetch(path, { method: "POST", headers, body });
  if (response.ok) return response.json();
  throw new Problem(response.status, await response.json().catch(() => ({})));
}

// ── Drawing ─────────────────────────────────────────────────────────────────────────────────────

function showState(phase, text) {
  state.phase = phase;
  const line = part("state");
  line.dataset.phase = phase;
  line.textContent = text;
  const button = part("connection");
  button.hidden = state.user === null;
  button.textContent = isBusy() ? "Disconnect" : "Connect";
}

function showFieldError(id, text) {
  part(`${id}-error`).textContent = text;
  part(id).setAttribute("aria-invalid", String(text !== ""));
}

function refuseField(id, text) {
  showFieldError(id, text);
  part(id).focus();
}

function copyOf(template) {
  return part(template).content.firstElementChild.cloneNode(true);
}

function fill(entry, texts) {
  for (const [name, text] of Object.entries(texts)) {
    entry.querySelector(`[data-part="${name}"]`).textContent = text;
  }
}

function stamp(entry, time) {
  const element = entry.querySelector("time");
  element.dateTime = time;
  element.textContent = timeOfDay(time);
}

function timeOfDay(time) {
  return new Date(time).toLocaleTimeString();
}

function prependBounded(list, entry, most) {
  list.prepend(entry);
  while (list.childElementCount > most) list.lastElementChild.remove();
}

// ── Start ───────────────────────────────────────────────────────────────────────────────────────

function onSubmit(id, act) {
  part(id).addEventListener("submit", (event) => {
    event.preventDefault();
    act(event.currentTarget);
  });
}

function signInFromUrl() {
  const user = userInUrl();
  if (user && user !== state.user) signIn(user);
}

function start() {
  onSubmit("sign-in", (form) => signIn(form.elements.user.value.trim()));
  onSubmit("send", sendEvent);
  onSubmit("follow", (form) => follow(form.elements.topic.value.trim()));
  part("send").addEventListener("change", (event) => {
    if (event.target.name === "audience") showAudience();
  });
  part("connection").addEventListener("click", toggleConnection);
  part("clear").addEventListener("click", clearEvents);
  addEventListener("hashchange", signInFromUrl);
  showAudience(); // a reload may keep the choice made before
  signInFromUrl();
}

start();
