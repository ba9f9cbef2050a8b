// A page's place in each stream, as it hears of another tab's connection.
import assert from "node:assert/strict";
import { test } from "node:test";
import { sourceOf } from "./source.mjs";

const { Stream } = await sourceOf("src/stream.ts");

const event = (position) => ({ type: "event", topic: "t", position });
const turn = () => new Promise((resolve) => setTimeout(resolve));

function page(own, history = () => assert.fail("history is not needed")) {
  const passed = [];
  const pass = ({ type, position }) => passed.push(type === "gap" ? `gap ${position}` : position);
  const stream = new Stream({ t: own }, { _follows: () => true, _pass: pass, _history: history });
  return { stream, passed };
}

test("a frame that comes after the own position is passed on, once", () => {
  const { stream, passed } = page("a.1");

  stream._take(event("a.2"), "a.1");
  stream._take(event("a.2"), "a.1");
  stream._take(event("a.5"), "a.2");

  assert.deepEqual(passed, ["a.2", "a.5"]);
});

test("a page that is behind reads history first, and drops the duplicates of it", async () => {
  const asked = [];
  const pages = [
    { frames: [event("a.2"), event("a.3")], at: "a.3", more: true },
    { frames: [event("a.4")], at: "a.4", more: false },
  ];
  const { stream, passed } = page("a.1", async (topic, since) => {
    asked.push(since);
    return pages.shift();
  });

  stream._take(event("a.4"), "a.3");
  stream._take(event("a.5"), "a.4");
  await turn();

  assert.deepEqual(asked, ["a.1", "a.3"]);
  assert.deepEqual(passed, ["a.2", "a.3", "a.4", "a.5"]);
});

test("a stream that was begun anew meanwhile is asked for, not guessed at", async () => {
  const gap = { type: "gap", topic: "t", position: "z.1", reason: "restarted" };
  const { stream, passed } = page("a.9", async () => ({ frames: [gap], at: "z.1", more: false }));

  stream._take(event("z.2"), "z.1");
  await turn();

  assert.deepEqual(passed, ["gap z.1", "z.2"]);
});

test("history that cannot be had is told as a gap", async () => {
  const { stream, passed } = page("a.1", () => Promise.reject(new Error("refused")));

  stream._take(event("a.4"), "a.3");
  await turn();
  stream._take(event("a.5"), "a.4");

  assert.deepEqual(passed, ["gap a.4", "a.5"]);
});
