// The developer page: it signs a user in, shows the events that come, and posts events.

import { nowFollowed } from "./advice.js";
import { connection, hangUp, signInAs, toggleConnection, tryNow } from "./connection.js";
import { copyAs } from "./copying.js";
import * as cursor from "./cursor.js";
import { copyOf, fill, keepFirst, onSubmit, part, showFieldError } from "./dom.js";
import { clearEvents, recall, showArrived, showGap } from "./events.js";
import * as marks from "./marks.js";
import * as members from "./members.js";
import * as sending from "./sending.js";
import * as topics from "./topics.js";

const FRAMES_KEPT = 200;

const recalled = new Set(); // topics whose history is shown, or being asked for

// Signing in.

function signIn(user) {
  hangUp();
  cursor.takeUp(user);
  recalled.clear();
  clearEvents();
  marks.forgetMarks();
  members.forgetMembers();
  part("frames").replaceChildren();
  part("facts").hidden = true;
  for (const id of ["user", "name", "type", "data", "topic"]) showFieldError(id, "");
  part("user").value = user;
  part("welcome").hidden = true;
  part("nothing").hidden = false;
  topics.showTopics();
  sending.showAudience(user);
  sending.forgetResult();
  signInAs(user);
}

function signInFromUrl() {
  const user = new URLSearchParams(location.hash.slice(1)).get("user");
  if (user && user !== connection.user) signIn(user);
}

// Frames.

const HEARD = {
  hello: greeted,
  event: arrived,
  gap: missed,
  subscribed: followed,
  unsubscribed: unfollowed,
  marks: marks.marked,
  presence: members.told,
  error: complained,
}; // later versions may say more

function greeted(frame) {
  cursor.keepOnly(frame.topics);
  for (const [topic, start] of Object.entries(frame.topics)) cursor.startFrom(topic, start);
  recallOnce(frame.topics);
  topics.connectionOpened();
  sending.connectionOpened();
  marks.showBadges();
  marks.tellReceived();
  part("session").textContent = frame.session;
  part("heartbeat").textContent = `${frame.heartbeat} s`;
  part("connected").textContent = new Date(frame.time).toLocaleTimeString();
  part("facts").hidden = false;
  topics.showTopics();
}

function arrived(frame) {
  cursor.positions.set(frame.topic, frame.position);
  showArrived(frame);
  marks.received(frame);
  topics.showTopics();
}

function missed(frame) {
  cursor.positions.set(frame.topic, frame.position);
  recallOrForget({ [frame.topic]: frame.position }, showGap(frame));
  topics.showTopics();
}

function followed(frame) {
  cursor.startFrom(frame.topic, frame);
  recallOnce({ [frame.topic]: frame });
  topics.followed(frame);
  nowFollowed(frame.topic);
  topics.showTopics();
}

function unfollowed({ topic }) {
  cursor.positions.delete(topic);
  marks.forgetMarks([topic]);
  members.forgetMembers([topic]);
  recalled.delete(topic);
  topics.showTopics();
}

function complained(frame) {
  if (frame.id === marks.MARK) marks.complained(frame.message);
  else topics.complained(frame);
}

// A topic that did not resume is recalled when its gap is there.
function recallOnce(starts) {
  const fresh = Object.entries(starts)
    .filter(([topic, { resumed }]) => resumed !== false && !recalled.has(topic))
    .map(([topic, { position }]) => [topic, position]);
  if (fresh.length) recallOrForget(Object.fromEntries(fresh));
}

// What cannot be read now is asked for again by the next connection.
async function recallOrForget(starts, floor) {
  const names = Object.keys(starts);
  for (const topic of names) recalled.add(topic);
  try {
    await recall(connection.user, starts, floor);
  } catch {
    for (const topic of names) recalled.delete(topic);
  }
}

function logFrame(way, text) {
  const entry = copyOf("frame-entry");
  fill(entry, { way, text });
  entry.classList.toggle("out", way === "↑");
  part("frames").prepend(entry);
  keepFirst(part("frames"), FRAMES_KEPT);
}

// Start.

function start() {
  connection.onFrame = (frame) => HEARD[frame.type]?.(frame);
  connection.onEnd = topics.connectionEnded;
  connection.onText = logFrame;
  onSubmit("sign-in", (form) => signIn(form.elements.user.value.trim()));
  onSubmit("send", sending.sendEvent);
  onSubmit("follow", (form) => topics.follow(form.elements.topic.value.trim()));
  part("send").addEventListener("change", ({ target }) => {
    if (target.name === "audience") sending.showAudience(connection.user);
  });
  for (const id of ["name", "type", "data"]) part(id).addEventListener("input", sending.edited);
  for (const id of ["user", "topic"]) {
    part(id).addEventListener("input", () => showFieldError(id, ""));
  }
  for (const button of part("copy").querySelectorAll("button")) {
    button.addEventListener("click", () => copyAs(button));
  }
  part("connection").addEventListener("click", toggleConnection);
  part("now").addEventListener("click", tryNow);
  part("events").addEventListener("click", marks.clicked);
  part("read-all").addEventListener("click", marks.markAll);
  part("clear").addEventListener("click", clearEvents);
  addEventListener("online", tryNow);
  addEventListener("hashchange", signInFromUrl);
  addEventListener("pagehide", () => {
    marks.tellReceived();
    cursor.keep(connection.user);
  });
  sending.showAudience(null); // a reload may keep the choice made before
  signInFromUrl();
}

start();
