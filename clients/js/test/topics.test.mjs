// Topics that are taken and left in one turn: the gateway's answers come long after.
import assert from "node:assert/strict";
import { afterEach, test as testOfNode } from "node:test";
import { FakeSocket, client, closeAll } from "./gateway.mjs";

const test = (name, run) => testOfNode(name, { timeout: 30_000 }, run);
const codeOf = ({ code }) => code;

afterEach(closeAll);

/** Answer all that was sent as a gateway does; returns the topics that it follows then. */
function answered(socket, followed = new Set()) {
  for (const { type, topic, id } of socket.sent.splice(0)) {
    if (type === "subscribe") followed.add(topic);
    else followed.delete(topic);
    socket.say({ type: `${type}d`, topic, id, ...(type === "subscribe" && { position: `${topic}.1` }) });
  }
  return followed;
}

test("a topic that is left and taken again before the gateway answered is followed", async () => {
  const { notifier, ids } = client();
  const socket = await FakeSocket.next();
  socket.hello();
  const left = notifier.subscribe("a").catch(codeOf);
  notifier.unsubscribe("a");
  const taken = notifier.subscribe("a");

  const followed = answered(socket);

  assert.equal(await left, "unsubscribed");
  await taken;
  assert.deepEqual([...followed], ["a"]);
  socket.event("a.2", "a");
  assert.deepEqual(ids(), ["a.2"]);
});

test("a topic that is taken and left before the gateway answered is not followed", async () => {
  const { notifier, ids } = client();
  const socket = await FakeSocket.next();
  socket.hello();
  const taken = [1, 2, 3].map(() => {
    const asked = notifier.subscribe("a").catch(codeOf);
    notifier.unsubscribe("a");
    return asked;
  });

  const followed = answered(socket);

  assert.deepEqual(await Promise.all(taken), ["unsubscribed", "unsubscribed", "unsubscribed"]);
  assert.equal(followed.size, 0);
  assert.deepEqual(notifier.topics, []);
  socket.event("a.2", "a");
  assert.deepEqual(ids(), []);
});

test("a topic that was left and taken again is followed whichever answers are under way", async () => {
  const { notifier, ids } = client();
  const socket = await FakeSocket.next();
  socket.hello();
  const first = notifier.subscribe("a");
  const followed = answered(socket);
  await first;
  notifier.unsubscribe("a");
  const again = notifier.subscribe("a");
  notifier.unsubscribe("a");
  const third = notifier.subscribe("a");

  answered(socket, followed);

  assert.equal(await again.catch(codeOf), "unsubscribed");
  await third;
  assert.deepEqual([...followed], ["a"]);
  socket.event("a.2", "a");
  assert.deepEqual(ids(), ["a.2"]);
});

test("a hundred topics of one turn are followed, and those left in it are not", async () => {
  const { notifier } = client();
  const socket = await FakeSocket.next();
  socket.hello();
  const names = Array.from({ length: 100 }, (_, number) => `t${number}`);
  const asked = names.map((name) => notifier.subscribe(name).catch(codeOf));
  for (const name of names.slice(50)) notifier.unsubscribe(name);

  const followed = new Set();
  while (followed.size !== 50 || socket.sent.length) {
    answered(socket, followed);
    await new Promise(setImmediate);
  }

  assert.deepEqual((await Promise.all(asked)).filter(Boolean).length, 50);
  assert.deepEqual([...followed], names.slice(0, 50));
  assert.deepEqual(notifier.topics, names.slice(0, 50));
});
