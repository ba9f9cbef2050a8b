// A page's place in each stream, as it hears of another tab's connection.
import assert from "node:assert/strict";
import { test } from "node:test";
import { sourceOf } from "./source.mjs";

const { Stream } = await sourceOf("src/stream.ts");
const { catchUp } = await sourceOf("src/history.ts");

const event = (position) => ({ type: "event", topic: "t", position });
const answered = async (told) => {
  while (!told()) await new Promise(setImmediate);
};

function page(own, history = () => assert.fail("history is not needed")) {
  const passed = [];
  const pass = ({ type, position }) => passed.push(type === "gap" ? `gap ${position}` : position);
  const fetch = async (url) => history(new URL(url).searchParams.get("since"));
  const settings = { url: "https://push.example", fetch, _tokens: { _get: async () => undefined } };
  const read = (...asked) => catchUp(settings, ...asked, () => true);
  const stream = new Stream(new Map([["t", own]]), { _follows: () => true, _pass: pass, _catchUp: read });
  return { stream, passed };
}

const answer = (frames, cursor, more = false) => Response.json({ frames, cursor, more });

test("a frame that comes after the own position is passed on, once", () => {
  const { stream, passed } = page("a.1");

  stream._take(event("a.2"), "a.1");
  stream._take(event("a.2"), "a.1");
  stream._take(event("a.5"), "a.2");

  assert.deepEqual(passed, ["a.2", "a.5"]);
});

test("a page that is behind reads history first, and drops the duplicates of it", async () => {
  const asked = [];
  const pages = [answer([event("a.2"), event("a.3")], "t@a.3", true), answer([event("a.4")], "t@a.4")];
  const { stream, passed } = page("a.1", (since) => {
    asked.push(since);
    return pages.shift();
  });

  stream._take(event("a.4"), "a.3");
  stream._take(event("a.5"), "a.4");
  await answered(() => passed.includes("a.5"));

  assert.deepEqual(asked, ["t@a.1", "t@a.3"]);
  assert.deepEqual(passed, ["a.2", "a.3", "a.4", "a.5"]);
});

test("a stream that was begun anew meanwhile is asked for, not guessed at", async () => {
  const gap = { type: "gap", topic: "t", position: "z.1", reason: "restarted" };
  const { stream, passed } = page("a.9", () => answer([gap], "t@z.1"));

  stream._take(event("z.2"), "z.1");
  await answered(() => passed.includes("z.2"));

  assert.deepEqual(passed, ["gap z.1", "z.2"]);
});

test("history that cannot be had is told as a gap", async () => {
  const headers = { "content-type": "application/problem+json" };
  const refusal = () => new Response('{"code":"forbidden"}', { status: 403, headers });
  const { stream, passed } = page("a.1", refusal);

  stream._take(event("a.4"), "a.3");
  await answered(() => passed.length);
  stream._take(event("a.5"), "a.4");

  assert.deepEqual(passed, ["gap a.4", "a.5"]);
});

test("a topic that is left while its history is read gets no more of it", async () => {
  const { stream, passed } = page("a.1", () => answer([event("a.2"), event("a.3")], "t@a.3"));
  stream._reader._pass = ({ position }) => {
    passed.push(position);
    stream._forget("t");
  };

  stream._take(event("a.4"), "a.3");
  await answered(() => passed.length);
  await new Promise(setImmediate);

  assert.deepEqual(passed, ["a.2"]);
  assert.equal(stream._positions.size, 0);
});
