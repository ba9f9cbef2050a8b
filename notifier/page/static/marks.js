// How far the user has read each topic, on whatever device, as the server's `marks` frames say. Each
// number shown is theirs: counted here, two tabs would disagree.

import { connection, isOpen, send } from "./connection.js";
import { positions } from "./cursor.js";
import { fill, part } from "./dom.js";

export const MARK = "mark"; // the id of our mark frames, which an error repeats

const marks = new Map(); // topic → the last frame
const owed = new Map(); // topic → the position up to which we have not told yet that we received it

export function marked(frame) {
  marks.set(frame.topic, frame);
  part("marks-error").textContent = "";
  for (const entry of part("events").children) showWhetherRead(entry);
  showBadges();
}

export function forgetMarks(topics = [...marks.keys()]) {
  for (const topic of topics) {
    marks.delete(topic);
    owed.delete(topic);
  }
  part("marks-error").textContent = "";
  showBadges();
}

export function complained(text) {
  part("marks-error").textContent = text;
}

// An entry without a position is a gap, or of a stream that is gone.
export function showWhetherRead(entry) {
  const { topic, position, silent } = entry.dataset;
  const isUnread = Boolean(position) && !silent && marks.has(topic) && !isRead(topic, position);
  entry.classList.toggle("unread", isUnread);
  const button = entry.querySelector("button");
  if (!button) return;
  if (!isUnread && document.activeElement === button) part("events").focus();
  button.hidden = !isUnread;
}

// A click on an entry marks it, but not one that ends the selection of text.
export function clicked({ target }) {
  const entry = target.closest(".unread");
  if (!entry || !getSelection().isCollapsed) return;
  mark({ topic: entry.dataset.topic, read_only: [entry.dataset.position] });
}

export function markAll() {
  for (const [topic, { unread }] of marks) if (unread) mark({ topic, read: positions.get(topic) });
}

// Once a second at most: many events may come at once.
export function received({ topic, position, ack }) {
  if (!ack) return;
  if (!owed.size) setTimeout(tellReceived, 1000);
  owed.set(topic, position);
}

// Without a connection it is told on the next one.
export function tellReceived() {
  if (!isOpen()) return;
  for (const [topic, position] of owed) send({ type: "mark", id: MARK, topic, received: position });
  owed.clear();
}

export function unreadOf(topic) {
  const { unread = 0, more = false } = marks.get(topic) ?? {};
  return unread ? `${unread}${more ? "+" : ""}` : "";
}

function mark(members) {
  if (isOpen()) send({ type: "mark", id: MARK, ...members });
  else complained("Connect first: the server keeps what is read.");
}

// Offsets of a topic only grow, also where a restart of Redis began another epoch.
function isRead(topic, position) {
  const { read, read_only: single = [] } = marks.get(topic);
  return (read && offsetOf(position) <= offsetOf(read)) || single.includes(position);
}

export function offsetOf(position) {
  return Number(position.split(".")[1]);
}

export function showBadges() {
  const all = [...marks.values()];
  const sum = all.reduce((count, { unread }) => count + unread, 0);
  const text = `${sum}${all.some(({ more }) => more) ? "+" : ""}`;
  part("badge").hidden = part("read-all").hidden = sum === 0;
  part("unread").textContent = text;
  if (connection.user === null) return;
  document.title = `${sum ? `(${text}) ` : ""}${connection.user} · notifier dev`;
  for (const row of part("topics").children) {
    fill(row, { unread: unreadOf(row.dataset.topic) });
  }
}
