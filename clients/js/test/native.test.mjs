// React Native has fewer globals than browsers and Node, and some that do less.
import assert from "node:assert/strict";
import { afterEach, test as testOfNode } from "node:test";
import { FakeSocket, client, closeAll } from "./gateway.mjs";

const MISSING = [
  ...["document", "localStorage", "sessionStorage", "BroadcastChannel", "Event", "EventTarget", "CustomEvent"],
  ...["DOMException", "ReadableStream", "TextDecoder", "TextEncoder", "atob", "crypto", "structuredClone"],
];
for (const name of MISSING) delete globalThis[name];
Object.defineProperty(globalThis, "navigator", { value: { product: "ReactNative" }, configurable: true });
globalThis.window = globalThis;
// Before 0.80 it takes an object of names alone, and makes `0=…` of a list.
globalThis.URLSearchParams = class {
  constructor(given) {
    this.pairs = Object.entries(given);
  }
  toString() {
    return this.pairs.map((pair) => pair.map(encodeURIComponent).join("=")).join("&");
  }
};

const test = (name, run) => testOfNode(name, { timeout: 30_000 }, run);
afterEach(closeAll);

test("topics, positions and marks are asked for by their names", async () => {
  client({ topics: ["room:7", "a&b"], since: { "user:42": "a.1" } });

  const { url } = await FakeSocket.next();

  const expected = { topics: "room:7,a&b", since: "user:42@a.1", marks: "true" };
  assert.deepEqual(Object.fromEntries(url.searchParams), expected);
});

test("events come, after a connection that failed with an error alone too", async () => {
  const { ids } = client();
  const first = await FakeSocket.next();
  first.onerror({ message: "Failed to connect" });
  first.onclose({ code: 1006, reason: "Failed to connect" });

  const second = await FakeSocket.next();
  second.hello();
  second.event("a.2");

  assert.deepEqual(ids(), ["a.2"]);
  assert.deepEqual(FakeSocket.all, []);
});

test("an event is published, and one that is too large is refused", async () => {
  const { notifier } = client();
  const socket = await FakeSocket.next();
  socket.hello();
  const published = notifier.publish("room:7", { type: "t", data: "ü".repeat(30_000) });
  const { id } = await socket.received("publish");
  socket.say({ type: "published", position: "c.1", id });
  await published;

  await assert.rejects(notifier.publish("room:7", { type: "t", data: "ü".repeat(33_000) }), { code: "too_large" });
});
