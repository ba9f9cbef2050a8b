// The list of followed topics, and the form that asks for one more.

import { connection, isOpen, send } from "./connection.js";
import { followedByItself, positions } from "./cursor.js";
import { copyOf, fill, part, refuseField, showFieldError } from "./dom.js";

const asked = new Map(); // id → topic of the subscribe frames without an answer yet
let lastId = 0;

export function follow(topic) {
  showFieldError("topic", "");
  if (!topic) return refuseField("topic", "Name a topic.");
  if (!isOpen()) return refuseField("topic", "Sign in and connect first.");
  lastId += 1;
  asked.set(lastId, topic);
  send({ type: "subscribe", id: lastId, topic });
}

function unfollow(topic) {
  if (!isOpen()) {
    positions.delete(topic); // the next connection will not ask for it
    showTopics();
    return;
  }
  lastId += 1;
  send({ type: "unsubscribe", id: lastId, topic });
}

export function followed({ id }) {
  if (asked.delete(id)) part("topic").value = "";
}

// Without an id it concerns the whole connection, yet topics are asked for at this field alone.
export function complained({ id, message }) {
  asked.delete(id);
  showFieldError("topic", message);
}

export function connectionOpened() {
  showFieldError("topic", "");
}

export function connectionEnded() {
  showFieldError("topic", asked.size ? "The connection closed before the answer came." : "");
  asked.clear();
}

// Rows are kept and only their positions change: a redrawn button would lose the keyboard's focus.
export function showTopics() {
  const list = part("topics");
  for (const row of [...list.children]) if (!positions.has(row.dataset.topic)) dropTopic(row);
  for (const [topic, position] of positions) {
    const row = [...list.children].find((one) => one.dataset.topic === topic) ?? addTopic(topic);
    fill(row, { position });
  }
  part("no-topics").hidden = positions.size > 0;
}

function addTopic(topic) {
  const row = copyOf("topic-entry");
  fill(row, { name: topic });
  row.dataset.topic = topic;
  const button = row.querySelector("button");
  button.hidden = followedByItself(topic, connection.user);
  button.setAttribute("aria-label", `Unfollow ${topic}`);
  button.onclick = () => unfollow(topic);
  part("topics").append(row);
  return row;
}

function dropTopic(row) {
  if (row.contains(document.activeElement)) part("topic").focus();
  row.remove();
}
