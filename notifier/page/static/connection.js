// One WebSocket to /v1/ws, which comes back by itself and resumes from the cursor.

import * as cursor from "./cursor.js";
import { part, showFieldError } from "./dom.js";
import { Problem, parse, tokenOf } from "./http.js";

const BACK_OFF_MS = { least: 500, first: 1_000, most: 20_000 };
const REASONS = {
  1006: "the connection broke",
  4000: "the server shuts down",
  4001: "the token has expired",
  4002: "this tab read too slowly",
  4003: "the server heard nothing of this tab",
  4004: "the server does not reach Redis",
  4005: "the connection had reached its greatest age",
};

export const connection = {
  user: null,
  onFrame: () => {}, // called with each frame
  onEnd: () => {}, // called when it is lost, refused or ended by hand
  onText: () => {}, // called with ↓ or ↑ and the text of each frame
};

let phase = "idle"; // idle, connecting, open, lost or refused
let socket = null;
let attempt = 0; // grows with each connect and disconnect: an answer to an older one is ignored
let retries = 0; // since the last hello
let timer = null;
let comeBackMs = null; // what a bye frame asked for
let complaint = ""; // of an error frame about the connection itself

export function signInAs(user) {
  connection.user = user;
  retries = 0;
  connect();
}

export function toggleConnection() {
  const wasBusy = isBusy();
  retries = 0;
  hangUp();
  if (wasBusy) showState("idle", `Disconnected, signed in as ${connection.user}`);
  else connect();
}

export function tryNow() {
  if (phase === "lost") connect();
}

export function isOpen() {
  return socket?.readyState === WebSocket.OPEN;
}

export function send(frame) {
  const text = JSON.stringify(frame);
  socket.send(text);
  connection.onText("↑", text);
}

async function connect() {
  hangUp();
  const mine = attempt;
  if (retries) part("countdown").textContent = "Trying now…";
  else showState("connecting", "Connecting…");
  try {
    const token = await tokenOf(connection.user);
    if (mine === attempt) openSocket(token);
  } catch (error) {
    if (mine === attempt) tokenFailed(error);
  }
}

function tokenFailed(error) {
  if (!(error instanceof Problem) || error.status >= 500) {
    comeBack("the server does not answer");
    return;
  }
  connection.user = null;
  showState("idle", "Signed out");
  showFieldError("user", error.reason);
  part("user").focus();
}

function openSocket(token) {
  rememberUser(connection.user);
  const url = new URL("/v1/ws", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("marks", "true");
  url.searchParams.set("presence", "true");
  if (cursor.positions.size) url.searchParams.set("since", cursor.asText());
  const mine = new WebSocket(url, ["notifier.v1", `bearer.${token}`]);
  socket = mine;
  mine.onmessage = (message) => mine === socket && receive(message.data);
  mine.onclose = (close) => mine === socket && closed(close);
}

// The hash, not the query: it stays in the browser, and a second tab may have another user.
function rememberUser(user) {
  history.replaceState(null, "", `#user=${encodeURIComponent(user)}`);
}

function receive(text) {
  connection.onText("↓", text);
  const frame = parse(text);
  if (frame.type === "hello") greeted(frame);
  if (frame.type === "error" && frame.id === undefined) complaint = frame.message;
  if (frame.type === "bye") comeBackMs = frame.reconnect_after_ms ?? null;
  connection.onFrame(frame);
}

function greeted({ user }) {
  retries = 0;
  showState("open", `Connected as ${user}`);
}

// 4500–4999 means: not without a change. All else, 1006 and 4001 too, is worth another try.
function closed({ code, reason }) {
  const isFinal = code >= 4500 && code <= 4999;
  const why = `${(isFinal && complaint) || REASONS[code] || reason || "closed"} (${code})`;
  const askedMs = comeBackMs;
  hangUp();
  if (isFinal) showState("refused", `Refused: ${why}`);
  else comeBack(why, askedMs);
}

function comeBack(why, askedMs = null) {
  const delay = askedMs ?? jitter(retries);
  retries += 1;
  showState("lost", `Not connected: ${why}`);
  countDown(performance.now() + delay);
}

function countDown(due) {
  const left = due - performance.now();
  if (left <= 0) {
    connect();
    return;
  }
  part("countdown").textContent = `Next try in ${Math.ceil(left / 1000)} s`;
  timer = setTimeout(countDown, left % 1000 || 1000, due);
}

function jitter(retries) {
  const ceiling = Math.min(BACK_OFF_MS.most, BACK_OFF_MS.first * 2 ** retries);
  return BACK_OFF_MS.least + Math.random() * (ceiling - BACK_OFF_MS.least);
}

function isBusy() {
  return ["connecting", "open", "lost"].includes(phase);
}

export function hangUp() {
  attempt += 1;
  clearTimeout(timer);
  const last = socket;
  socket = null;
  comeBackMs = null;
  complaint = "";
  last?.close(1000);
  if (last) connection.onEnd();
}

// The countdown is no part of the status: a screen reader would read out every second.
function showState(next, text) {
  phase = next;
  part("link").dataset.phase = phase;
  part("state").textContent = text;
  part("countdown").textContent = "";
  const button = part("connection");
  button.hidden = connection.user === null;
  button.textContent = { open: "Disconnect", connecting: "Stop", lost: "Stop" }[phase] ?? "Connect";
  if (phase !== "lost" && document.activeElement === part("now")) button.focus();
  part("now").hidden = phase !== "lost";
}
