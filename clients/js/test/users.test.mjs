// Somebody signs out, and somebody else signs in on the same page.
import assert from "node:assert/strict";
import { afterEach, test as testOfNode } from "node:test";
import { FakeSocket, client, closeAll, reached, tokenOf } from "./gateway.mjs";
import { sourceOf } from "./source.mjs";

const { Inbox } = await sourceOf("src/inbox.ts");
const test = (name, run) => testOfNode(name, { timeout: 30_000 }, run);
const history = (asked) => async (url) => {
  asked.push(new URL(url).searchParams);
  return Response.json({ frames: [], cursor: "", more: false });
};

afterEach(closeAll);

async function annThenBob(change, options = {}) {
  const made = client({ topics: ["news"], ...options });
  const first = await FakeSocket.next();
  const topics = { "user:ann": { position: "a.1" }, everyone: { position: "e.1" }, news: { position: "n.1" } };
  first.say({ type: "hello", user: "ann", heartbeat: 25, topics });
  const inbox = new Inbox(made.notifier, () => {});
  await reached(made.notifier, "open");
  first.event("a.2", "user:ann");
  for (const topic of Object.keys(topics)) first.say({ type: "marks", topic, unread: 3 });
  first.say({ type: "presence", topic: "news", count: 1, members: ["ann"] });
  const asked = made.notifier.publish("news", { type: "secret" }).catch((error) => error);
  change(made.notifier, first);

  const second = await FakeSocket.next();
  const others = { "user:bob": { position: "b.7" }, everyone: { position: "e.1" }, news: { position: "n.1" } };
  second.say({ type: "hello", user: "bob", heartbeat: 25, topics: others });
  await reached(made.notifier, "open");
  return { ...made, second, inbox, asked };
}

const WAYS = {
  "comes back by close() and start()": (notifier) => {
    notifier.close();
    notifier.start();
  },
  "is refused, and starts again": async (notifier, socket) => {
    socket.end(4501, {});
    notifier.start();
  },
  "only gets the other user's token": (_, socket) => socket.end(1006),
};

for (const [way, change] of Object.entries(WAYS)) {
  test(`the former user's events, marks and requests are gone where a client ${way}`, async () => {
    const asked = [];
    const { notifier, told, second, inbox, asked: published } = await annThenBob(change, { fetch: history(asked) });

    assert.equal(notifier.user, "bob");
    assert.deepEqual(notifier.cursor, { everyone: "e.1", news: "n.1", "user:bob": "b.7" });
    assert.deepEqual(notifier.unread, { count: 0, more: false });
    assert.deepEqual([{ ...notifier.marks }, { ...notifier.presence }], [{}, {}]);
    assert.equal((await published).code, "stopped");
    assert.deepEqual(second.sent, []);
    assert.deepEqual(inbox.view, { items: [], unread: 0, more: false, hasEarlier: false });
    told.length = 0;
    second.event("a.3", "user:ann");
    second.event("b.8", "user:bob");
    assert.deepEqual(told.map(([name, { topic }]) => [name, topic]), [["event", "user:bob"]]);
    assert.deepEqual(inbox.view.items.map(({ frame }) => frame.topic), ["user:bob"]);
    inbox.close();
  });
}

test("the same user's events, marks and requests stay over a reconnect", async () => {
  const { notifier } = client({ fetch: history([]) });
  const first = await FakeSocket.next();
  first.hello();
  const inbox = new Inbox(notifier, () => {});
  await reached(notifier, "open");
  first.event("a.2");
  first.say({ type: "marks", topic: "user:42", unread: 1 });
  const published = notifier.publish("news", { type: "t" });
  first.end(1006);

  const second = await FakeSocket.next();
  second.hello({ "user:42": { position: "a.2", resumed: true } });
  second.say({ type: "published", id: (await second.received("publish")).id, position: "n.1" });

  assert.equal(await published, "n.1");
  assert.equal(notifier.unread.count, 1);
  assert.equal(inbox.view.items.length, 1);
  inbox.close();
});

test("a user that is given as a number is the same one", async () => {
  const { notifier } = client({ user: 42 });
  const published = notifier.publish("news", { type: "t" });
  const socket = await FakeSocket.next();

  socket.hello();

  socket.say({ type: "published", id: (await socket.received("publish")).id, position: "n.1" });
  assert.equal(await published, "n.1");
});

test("a page that was loaded anew by another user has no position of the former one", async () => {
  const since = { "user:ann": "a.5", everyone: "e.1" };
  const { notifier } = client({ since, getToken: () => tokenOf(600, "bob") });
  const socket = await FakeSocket.next();

  socket.say({ type: "hello", user: "bob", heartbeat: 25, topics: { "user:bob": { position: "b.1" } } });

  assert.deepEqual(notifier.cursor, { everyone: "e.1", "user:bob": "b.1" });
});
