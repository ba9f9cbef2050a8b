// The list of events, newest first: those that arrive, and those that history has.

import { copyOf, fill, keepFirst, part, stamp } from "./dom.js";
import { get, tokenOf } from "./http.js";
import { offsetOf, showWhetherRead } from "./marks.js";

const EVENTS_KEPT = 200;
const LONGEST_LINE = 48; // characters
const PAGE = 256; // the most that history gives of a topic at once
const ANNOUNCE_AFTER_MS = 1_000;

let generation = 0; // grows when the list is cleared: history asked for before is not shown
let unannounced = 0;

export function showArrived(frame) {
  add(eventEntry(frame));
}

// Show a gap, and return its entry: what history has of the topic goes above it.
export function showGap({ topic, position, reason }) {
  const entry = copyOf("gap-entry");
  const text = `Events of this topic were missed (${reason}). It goes on after ${position}. ` +
    "An application would fetch its state anew here.";
  fill(entry, { topic, text });
  if (reason === "restarted") forgetPositions(topic);
  stamp(entry, new Date().toISOString());
  return add(entry);
}

// Show what history has of topics up to where their live events start: `starts` has the position of
// each topic. Nothing is shown twice. Throws when history cannot be read.
export async function recall(user, starts, floor = null) {
  const mine = generation;
  const frames = await history(user, Object.keys(starts));
  if (mine !== generation) return;
  const shown = new Set([...part("events").children].map((entry) => entry.dataset.key));
  const isOld = ({ type, topic, position }) =>
    type === "event" && offsetOf(position) <= offsetOf(starts[topic]);
  const entries = frames.filter(isOld).map(eventEntry);
  const missing = entries.filter((entry) => !shown.has(entry.dataset.key));
  for (const entry of missing.reverse()) place(entry, floor);
  keepFirst(part("events"), EVENTS_KEPT);
  noteChange();
  if (missing.length) say(counted(missing.length, "earlier event"));
}

export function clearEvents() {
  generation += 1;
  unannounced = 0;
  part("events").replaceChildren();
  part("news").textContent = "";
  noteChange();
}

async function history(user, topics) {
  const headers = { authorization: `Bearer ${await tokenOf(user)}` };
  const frames = [];
  let page = { cursor: "", more: true };
  while (page.more) {
    const asked = { topics: topics.join(), since: page.cursor, limit: PAGE };
    page = await get("/v1/history", asked, headers);
    frames.push(...page.frames);
  }
  return frames;
}

function eventEntry({ topic, position, event }) {
  const entry = copyOf("event-entry");
  const data = event.data === undefined ? "" : legible(event.data);
  fill(entry, { type: event.type, topic, position, id: event.id, data });
  stamp(entry, event.time);
  entry.dataset.topic = topic;
  entry.dataset.position = position;
  if (event.silent) entry.dataset.silent = "true";
  entry.dataset.key = JSON.stringify([topic, event.source, event.id]);
  entry.querySelector("pre").hidden = data === "";
  if (data.length > LONGEST_LINE) entry.querySelector("pre").tabIndex = 0; // it may scroll: by keys too
  entry.querySelector("button").setAttribute("aria-label", `Mark ${event.type} as read`);
  showWhetherRead(entry);
  return entry;
}

// A stream that has begun anew counts from the beginning: what is shown of the last one is past.
function forgetPositions(topic) {
  for (const entry of part("events").children) {
    if (entry.dataset.topic !== topic) continue;
    delete entry.dataset.position;
    showWhetherRead(entry);
  }
}

function legible(data) {
  const line = JSON.stringify(data);
  return line.length <= LONGEST_LINE ? line : JSON.stringify(data, null, 2);
}

function add(entry) {
  entry.classList.add("new");
  part("events").prepend(entry);
  keepFirst(part("events"), EVENTS_KEPT);
  noteChange();
  unannounced += 1;
  if (unannounced === 1) setTimeout(announce, ANNOUNCE_AFTER_MS);
  return entry;
}

// Place an entry of history above `floor`: among those of its topic by its position, among others by
// its time. Topics have no common order, and the time is the producer's word.
function place(entry, floor) {
  const list = part("events");
  const above = [...list.children];
  if (floor) above.length = above.indexOf(floor);
  const isOfTopic = ({ dataset }) => dataset.topic === entry.dataset.topic;
  const newer = above.findLastIndex((each) => isOfTopic(each) && isNewer(each, entry));
  const next = above.slice(newer + 1);
  const older = next.find((each) => isOfTopic(each) || timeOf(each) <= timeOf(entry));
  list.insertBefore(entry, older ?? floor);
}

// Of one topic; an entry of a stream that is gone has no position.
function isNewer({ dataset }, other) {
  return Boolean(dataset.position) && offsetOf(dataset.position) > offsetOf(other.dataset.position);
}

function timeOf(entry) {
  return Date.parse(entry.querySelector("time").dateTime);
}

// One sentence for a burst: a screen reader shall not read out every event.
function announce() {
  if (unannounced) say(counted(unannounced, "new event"));
  unannounced = 0;
}

function counted(count, what) {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

function say(text) {
  const news = part("news");
  news.textContent = news.textContent === text ? `${text}.` : text; // the same would stay unspoken
}

function noteChange() {
  const isEmpty = part("events").childElementCount === 0;
  part("no-events").hidden = !isEmpty;
  part("clear").hidden = isEmpty;
}
