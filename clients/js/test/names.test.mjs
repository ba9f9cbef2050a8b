// Topics and users may be named as members that each object has.
import assert from "node:assert/strict";
import { afterEach, test as testOfNode } from "node:test";
import { FakeSocket, client, closeAll, reached } from "./gateway.mjs";

const NAMES = ["__proto__", "constructor", "hasOwnProperty", "toString"];
const test = (name, run) => testOfNode(name, { timeout: 30_000 }, run);
const starts = (offset) => Object.fromEntries(NAMES.map((name) => [name, { position: `a.${offset}` }]));
const cursorOf = (offset) => NAMES.map((name) => `${name}@a.${offset}`);

afterEach(closeAll);

test("topics with names of an object's members are followed, resumed and marked", async () => {
  const { notifier, ids } = client({ topics: NAMES });
  const first = await FakeSocket.next();
  assert.deepEqual(first.url.searchParams.get("topics").split(","), NAMES);
  first.hello(starts(1));
  for (const topic of NAMES) first.event("a.2", topic);
  for (const topic of NAMES) first.say({ type: "marks", topic, unread: 1 });

  assert.equal(ids().length, NAMES.length);
  assert.equal(notifier.unread.count, NAMES.length);
  assert.deepEqual(Object.keys(notifier.cursor).filter((name) => NAMES.includes(name)), NAMES);
  first.end(1006);
  const second = await FakeSocket.next();
  assert.deepEqual(second.since.split(",").slice(2), cursorOf(2));
});

test("topics with such names are subscribed to and left, and are nobody's before", async () => {
  const { notifier, told, ids } = client();
  const socket = await FakeSocket.next();
  socket.hello();
  for (const topic of NAMES) {
    assert.equal(notifier.marks[topic], undefined);
    assert.equal(notifier.presence[topic], undefined);
    socket.event("a.2", topic);
    assert.deepEqual(ids(), []);
    const subscribed = notifier.subscribe(topic, { since: "a.1" });
    const { id, since } = await socket.received("subscribe");
    assert.equal(since, "a.1");
    socket.say({ type: "subscribed", topic, position: "a.1", resumed: true, id });
    await subscribed;
    socket.event("a.2", topic);
    assert.deepEqual(ids(), ["a.2"]);

    notifier.unsubscribe(topic);
    assert.equal((await socket.received("unsubscribe")).topic, topic);
    assert.ok(!Object.hasOwn(notifier.cursor, topic));
    told.length = 0;
  }
});

test("they come by long-poll, and from another client's cursor", async () => {
  const asked = [];
  const fetch = (url, { signal }) => {
    asked.push(new URL(url).searchParams.get("since"));
    if (asked.length > 2) return new Promise((_, reject) => signal.addEventListener("abort", reject));
    const cursor = ["user:42@u.1", ...cursorOf(asked.length + 1)].join();
    const event = { type: "event", topic: "__proto__", position: "a.3", event: { id: "late" } };
    return Promise.resolve(Response.json({ frames: asked.length > 1 ? [event] : [], cursor }));
  };
  const since = JSON.parse(`{${NAMES.map((name) => `"${name}":"a.1"`)}}`);
  const { notifier, ids } = client({ topics: NAMES, since, fetch, transports: ["poll"] });

  await reached(notifier, "open");
  while (asked.length < 3) await new Promise(setImmediate);

  assert.deepEqual(asked[0].split(","), cursorOf(1));
  assert.deepEqual(asked[1].split(",").slice(1), cursorOf(2));
  assert.deepEqual(ids(), ["late"]);
});
