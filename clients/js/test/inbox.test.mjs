// The list behind a bell, with a client that the test plays.
import assert from "node:assert/strict";
import { test } from "node:test";
import { sourceOf } from "./source.mjs";

const { Inbox } = await sourceOf("src/inbox.ts");
const PERSONAL = "user:42";
const event = (position, more = {}) => ({ type: "event", topic: PERSONAL, position, event: {}, ...more });
const turn = () => new Promise((resolve) => setTimeout(resolve));

/** An inbox whose history is `pages`, by the position that they come before. */
function inboxOf(pages) {
  const listeners = {};
  const asked = [];
  const notifier = {
    user: "42",
    state: { phase: "open" },
    marks: {},
    on: (name, listener) => {
      listeners[name] = listener;
      return () => delete listeners[name];
    },
    history: async ({ before }) => {
      asked.push(before);
      return pages[before ?? ""]();
    },
  };
  const inbox = new Inbox(notifier, () => {});
  const tell = (name, frame) => listeners[name]?.(frame);
  const shown = () => inbox.view.items.map(({ frame }) => frame.position);
  return { inbox, notifier, tell, shown, asked };
}

test("live events and pages of history are listed once, newest first, without silent ones", async () => {
  const first = { frames: [event("a.4"), event("a.3", { event: { silent: true } })], before: "a.3", more: true };
  const second = { frames: [event("a.2"), { type: "gap", topic: PERSONAL, position: "a.1" }], more: false };
  const { inbox, tell, shown, asked } = inboxOf({ "": () => first, "a.3": () => second });
  tell("event", event("a.4"));
  tell("event", event("a.5"));
  tell("event", event("a.9", { topic: "news" }));
  await turn();
  assert.deepEqual([shown(), inbox.view.hasEarlier], [["a.5", "a.4"], true]);

  await Promise.all([inbox.earlier(), inbox.earlier()]);

  assert.deepEqual([shown(), inbox.view.hasEarlier], [["a.5", "a.4", "a.2"], false]);
  assert.deepEqual(asked, [undefined, "a.3"]);
});

test("marks decide which items are read, also those of a former epoch", async () => {
  const frames = [event("b.4"), event("b.3"), event("a.2"), event("a.1", { read: true })];
  const { inbox, notifier, tell } = inboxOf({ "": () => ({ frames, more: false }) });
  await turn();
  const read = () => inbox.view.items.map(({ isRead }) => isRead);
  assert.deepEqual(read(), [false, false, false, true]);

  notifier.marks = { [PERSONAL]: { topic: PERSONAL, read: "b.2", read_only: ["b.4"], unread: 1, more: true } };
  tell("marks", notifier.marks[PERSONAL]);

  assert.deepEqual(read(), [true, false, true, true]);
  assert.deepEqual([inbox.view.unread, inbox.view.more], [1, true]);
});

test("a gap begins the list anew, and a page that was asked for before is dropped", async () => {
  let answer;
  const old = new Promise((resolve) => (answer = resolve));
  const pages = [old, { frames: [event("z.1")], more: false }];
  const { tell, shown } = inboxOf({ "": () => pages.shift() });

  tell("gap", { type: "gap", topic: PERSONAL, position: "z.1" });
  answer({ frames: [event("a.7")], more: true });
  await turn();

  assert.deepEqual(shown(), ["z.1"]);
});

/** Hold all timers of a test; returns how to let those pass that are set. Node 18 mocks none. */
function heldTimers(context) {
  const { setTimeout, clearTimeout } = globalThis;
  const held = new Set();
  globalThis.setTimeout = (act) => held.add(act) && act;
  globalThis.clearTimeout = (act) => held.delete(act);
  context.after(() => Object.assign(globalThis, { setTimeout, clearTimeout }));
  return () => {
    for (const act of [...held]) held.delete(act) && act();
  };
}

test("history that cannot be had is asked for again, and not after close()", async (context) => {
  const pass = heldTimers(context);
  const failing = () => Promise.reject(new Error("no"));
  const answers = [failing, () => ({ frames: [event("a.1")], more: false }), failing];
  const { inbox, tell, shown, asked } = inboxOf({ "": () => answers.shift()() });
  const settled = async () => {
    for (let turns = 0; turns < 10; turns++) await Promise.resolve();
  };
  await settled();
  pass();
  await settled();
  assert.deepEqual(shown(), ["a.1"]);

  tell("gap", { type: "gap", topic: PERSONAL, position: "z.1" });
  await settled();
  inbox.close();
  pass();

  assert.equal(asked.length, 3);
});

test("live events do not let the list grow without bound, and earlier() brings back those that left", async () => {
  const back = () => ({ frames: [event("a.3"), event("a.2"), event("a.1")], more: false });
  const { inbox, tell, shown } = inboxOf({ "": () => ({ frames: [], more: false }), "a.4": back });
  await turn();
  for (let offset = 1; offset <= 503; offset++) tell("event", event(`a.${offset}`));
  assert.deepEqual([shown().length, shown().at(-1), inbox.view.hasEarlier], [500, "a.4", true]);

  await inbox.earlier();

  assert.deepEqual([shown().length, shown().at(-1), inbox.view.hasEarlier], [503, "a.1", false]);
});
