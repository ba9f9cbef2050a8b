import assert from "node:assert/strict";
import { afterEach, test as testOfNode } from "node:test";
import { FakeSocket, client, closeAll, reached, tokenOf } from "./gateway.mjs";

// A test that fails must end: it neither waits for ever nor leaves a client behind.
const test = (name, run) => testOfNode(name, { timeout: 30_000 }, run);
afterEach(closeAll);

test("a client that reconnects resumes from its last positions", async () => {
  const { notifier, ids } = client({ topics: ["news"] });
  const first = await FakeSocket.next();
  assert.deepEqual(first.protocols[0], "notifier.v1");
  assert.equal(first.url.searchParams.get("topics"), "news");
  first.hello({ news: { position: "c.4" } });
  first.event("a.2");
  first.event("c.5", "news");
  first.end(1006);

  const second = await FakeSocket.next();

  assert.equal(second.since, "user:42@a.2,everyone@b.1,news@c.5");
  second.hello({ "user:42": { position: "a.2", resumed: true }, news: { position: "c.5", resumed: true } });
  second.event("a.3");
  assert.deepEqual(ids(), ["a.2", "c.5", "a.3"]);
  notifier.close();
});

test("a duplicate is dropped, and a gap is told", async () => {
  const { notifier, told, ids } = client();
  const socket = await FakeSocket.next();
  socket.hello();

  socket.event("a.2");
  socket.event("a.2");
  socket.say({ type: "gap", topic: "user:42", position: "z.1", reason: "restarted" });
  socket.event("z.2");

  assert.deepEqual(ids(), ["a.2", "z.2"]);
  assert.deepEqual(told.filter(([name]) => name === "gap").length, 1);
  notifier.close();
});

test("a position stays while its gap is still to come", async () => {
  const { notifier } = client();
  (await FakeSocket.next()).hello();
  const first = await reached(notifier, "open");
  assert.equal(first.transport, "websocket");
  const lost = { "user:42": { position: "z.9", resumed: false } };
  notifier.close();

  const { notifier: other, told } = client({ since: { "user:42": "a.1" } });
  const socket = await FakeSocket.next();
  socket.hello(lost);
  socket.end(1006);
  const next = await FakeSocket.next();

  assert.match(next.since, /user:42@a\.1/);
  next.hello(lost);
  next.say({ type: "gap", topic: "user:42", position: "z.9", reason: "expired" });
  assert.equal(other.cursor["user:42"], "z.9");
  assert.equal(told.filter(([name]) => name === "gap").length, 1);
  other.close();
});

for (const code of [4500, 4501, 4502, 4503, 4504]) {
  test(`close code ${code} stops the client, which says the reason and the remedy`, async () => {
    const { notifier, told } = client();
    const socket = await FakeSocket.next();
    socket.say({ type: "error", code: "unauthorized", message: "the token is bad" });
    socket.end(code, {});

    const { reason, remedy } = await reached(notifier, "stopped");

    assert.equal(reason, "the token is bad");
    assert.ok(remedy.length > 10);
    assert.equal(told.filter(([name]) => name === "stopped").length, 1);
    notifier.start();
    (await FakeSocket.next()).hello();
    await reached(notifier, "open");
    notifier.close();
  });
}

for (const [asked, times] of [[false, 1], [true, 0]]) {
  test(`a stop stands in the console ${times} times where a page ${asked ? "listens" : "does not listen"}`, async (t) => {
    const error = t.mock.method(console, "error", () => {});
    const { notifier } = client({}, asked ? undefined : []);
    const socket = await FakeSocket.next();
    socket.end(4501, {});

    await reached(notifier, "stopped");

    assert.deepEqual(error.mock.calls.map(({ arguments: [state] }) => state.code), Array(times).fill(4501));
    notifier.start();
    (await FakeSocket.next()).hello();
    await reached(notifier, "open");
    notifier.close();
    assert.equal(error.mock.callCount(), times);
  });
}

test("an expired token is replaced before the next connection, other ones are kept", async () => {
  let asked = 0;
  const { notifier } = client({ getToken: () => tokenOf(600 + asked++) });
  const first = await FakeSocket.next();
  first.hello();
  first.end(4003);
  const second = await FakeSocket.next();
  second.hello();
  assert.equal(asked, 1);

  second.end(4001, {});
  const third = await FakeSocket.next();

  assert.equal(asked, 2);
  assert.notEqual(third.protocols[1], second.protocols[1]);
  notifier.close();
});

test("a token is renewed in place before it expires", async () => {
  const lives = [1.3, 600];
  const { notifier } = client({ getToken: () => tokenOf(lives.shift()) });
  const socket = await FakeSocket.next();
  socket.hello();

  const { token, id } = await socket.received("auth");

  assert.ok(!socket.protocols.includes(`bearer.${token}`));
  socket.say({ type: "authenticated", expires: "2099-01-01T00:00:00Z", id });
  assert.equal(notifier.state.phase, "open");
  notifier.close();
});

test("getToken is asked again after it rejected, and after it hung", async () => {
  const answers = [() => Promise.reject(new Error("no")), () => new Promise(() => {}), () => tokenOf(600)];
  const { notifier } = client({
    getToken: () => answers.shift()(),
    timing: { token: 30, retry: [1, 1, 1] },
  });

  const socket = await FakeSocket.next();

  socket.hello();
  await reached(notifier, "open");
  notifier.close();
});

test("a client waits as long as bye says, and else spreads its retries up to the ceiling", async () => {
  const { notifier } = client({ random: () => 1, timing: { retry: [1, 2, 8] } });
  const waits = [];
  notifier.on("state", (state) => state.phase === "waiting" && waits.push(state.retryMs));
  const first = await FakeSocket.next();
  first.hello();
  first.end(4000, { reconnect_after_ms: 7 });
  for (let time = 0; time < 5; time++) (await FakeSocket.next()).end(1006);

  await FakeSocket.next();

  assert.deepEqual(waits, [7, 2, 4, 8, 8, 8]);
  notifier.close();
});

test("a half-open connection is noticed, and left", async () => {
  const { notifier } = client();
  const first = await FakeSocket.next();
  first.hello({}, { heartbeat: 0.02 });

  await first.received("ping");
  const second = await FakeSocket.next();

  assert.equal(first.readyState, 3);
  second.hello();
  await reached(notifier, "open");
  notifier.close();
});

test("a topic that is subscribed to is followed again after a reconnect", async () => {
  const { notifier } = client();
  const first = await FakeSocket.next();
  first.hello();
  const subscribed = notifier.subscribe("room:7");
  const { id, topic } = await first.received("subscribe");
  first.say({ type: "subscribed", topic, position: "r.3", id });
  await subscribed;
  first.event("r.4", "room:7");
  first.end(1006);

  const second = await FakeSocket.next();

  assert.match(second.since, /room:7@r\.4/);
  notifier.close();
});

test("a topic that is refused rejects its subscription, and is not asked for again", async () => {
  const { notifier } = client();
  const first = await FakeSocket.next();
  first.hello();
  const subscribed = notifier.subscribe("staff");
  const { id } = await first.received("subscribe");
  first.say({ type: "error", code: "forbidden", message: "the token does not allow topic staff", id });

  await assert.rejects(subscribed, { code: "forbidden" });
  first.end(1006);
  const second = await FakeSocket.next();

  assert.equal(second.url.searchParams.get("topics"), null);
  notifier.close();
});

test("a second subscribe of a topic waits as the first one does, and both are told of a refusal", async () => {
  const { notifier } = client({ topics: ["news"] });
  const ended = [];
  const subscribe = (topic, name) =>
    notifier.subscribe(topic).then(() => ended.push(name), ({ code }) => ended.push(`${name} ${code}`));
  const first = subscribe("news", "news, before hello");
  const socket = await FakeSocket.next();
  assert.deepEqual(ended, []);
  socket.hello({ news: { position: "n.1" } });
  await first;

  const asked = [subscribe("room:7", "one"), subscribe("room:7", "two"), subscribe("staff", "three"), subscribe("staff", "four")];
  const [room, staff] = [await socket.received("subscribe"), await socket.received("subscribe")];
  await subscribe("news", "news, again");
  assert.deepEqual(ended, ["news, before hello", "news, again"]);
  socket.say({ type: "subscribed", topic: "room:7", position: "r.3", id: room.id });
  socket.say({ type: "error", code: "forbidden", message: "no", id: staff.id });
  await Promise.all(asked);

  assert.deepEqual(ended.slice(2), ["one", "two", "three forbidden", "four forbidden"]);
  assert.equal(socket.sent.length, 0);
  notifier.unsubscribe("room:7");
  subscribe("room:7", "anew");
  await socket.received("subscribe");
  assert.equal(ended.length, 6);
});

test("a topic that is followed is read again from an earlier position", async () => {
  const asked = [];
  const fetch = async (url) => {
    asked.push(new URL(url).searchParams.get("since"));
    const frame = { type: "event", topic: "news", position: "n.4", event: { id: "n.4" } };
    return Response.json({ frames: [frame], cursor: "news@n.5", more: false });
  };
  const { notifier, ids } = client({ topics: ["news"], fetch });
  const socket = await FakeSocket.next();
  socket.hello({ news: { position: "n.5" } });

  const read = new Promise((got) => notifier.on("event", got));
  await notifier.subscribe("news", { since: "n.3" });
  await read;
  await new Promise(setImmediate);
  socket.event("n.6", "news");

  assert.deepEqual(asked, ["news@n.3"]);
  assert.deepEqual(ids(), ["n.4", "n.6"]);
  assert.equal(socket.sent.length, 0);
});

test("a connection that fails with an error alone is retried at once", async () => {
  const { notifier } = client({ timing: { retry: [1, 1, 1], patience: 600_000 } });
  const first = await FakeSocket.next();
  first.close = () => first.onerror({ message: "closed" }); // as Node does

  first.onerror({ message: "refused" });

  const second = await FakeSocket.next();
  assert.equal(notifier.state.phase, "connecting");
  first.onclose({ code: 1006, reason: "" }); // as browsers go on: it is no news
  second.hello();
  await reached(notifier, "open");
});

test("an event that is published is sent again with its id until it is answered", async () => {
  const { notifier } = client();
  const first = await FakeSocket.next();
  first.hello();
  const published = notifier.publish("room:7", { type: "chat" });
  const before = await first.received("publish");
  first.end(1006);
  const second = await FakeSocket.next();
  second.hello();

  const again = await second.received("publish");

  assert.deepEqual(again, before);
  second.say({ type: "published", id: again.id, position: "r.1" });
  assert.equal(await published, "r.1");
  notifier.close();
});

test("marks are kept by topic, and read ones are sent", async () => {
  const { notifier } = client();
  const socket = await FakeSocket.next();
  socket.hello();
  socket.say({ type: "marks", topic: "user:42", unread: 2 }, { type: "marks", topic: "everyone", unread: 1 });
  socket.event("a.2");

  const read = notifier.markRead();
  const { topic, read: position, id } = await socket.received("mark");

  assert.deepEqual(notifier.unread, { count: 3, more: false });
  assert.deepEqual([topic, position], ["user:42", "a.2"]);
  socket.say({ type: "marked", topic, read: position, id });
  await read;
  notifier.close();
});

test("events that ask for it are marked received, the furthest alone", async () => {
  const { notifier } = client();
  const socket = await FakeSocket.next();
  socket.hello();
  for (const offset of [2, 3, 4]) socket.event(`a.${offset}`, "user:42", { ack: true });

  const { topic, received } = await socket.received("mark");

  assert.deepEqual([topic, received], ["user:42", "a.4"]);
  assert.equal(socket.sent.length, 0);
  notifier.close();
});

test("events() gives each event in order, and ends with close()", async () => {
  const { notifier } = client();
  const got = [];
  const loop = (async () => {
    for await (const { event } of notifier.events()) got.push(event.id);
  })();
  const socket = await FakeSocket.next();
  socket.hello();
  socket.event("a.2");
  socket.event("a.3");

  notifier.close();
  await loop;

  assert.deepEqual(got, ["a.2", "a.3"]);
});

test("members of a topic are told as a whole, also where a frame has only a change", async () => {
  const { notifier } = client({ topics: ["room:7"], presence: true });
  const told = [];
  notifier.on("presence", ({ members, joined, left }) => told.push([members, joined, left]));
  const socket = await FakeSocket.next();
  socket.hello({ "room:7": { position: "r.1" } });
  assert.equal(socket.url.searchParams.get("presence"), "true");

  const say = (frame) => socket.say({ type: "presence", topic: "room:7", ...frame });
  say({ count: 2, members: ["ann", "bob"] });
  say({ count: 2, joined: ["cid"], left: ["ann"] });
  say({ count: 1200 });
  say({ count: 1, members: ["dee"] });

  assert.deepEqual(told, [
    [["ann", "bob"], undefined, undefined],
    [["bob", "cid"], ["cid"], ["ann"]],
    [undefined, undefined, undefined],
    [["dee"], undefined, undefined],
  ]);
  assert.deepEqual(notifier.presence["room:7"].members, ["dee"]);
});

test("a token without presence is told as an error, one without a topic is told once", async () => {
  const { notifier, told } = client({ topics: ["staff"], presence: true });
  const socket = await FakeSocket.next();
  socket.hello();
  const message = "the token does not allow presence: its claim presence must name the topics";

  socket.say({ type: "error", code: "forbidden", message });
  socket.say({ type: "error", code: "forbidden", message: "the token does not allow topic staff" });

  const errors = told.filter(([name]) => name === "error").map(([, error]) => error.message);
  assert.deepEqual(errors, ["the token does not allow topic staff", message]);
  assert.deepEqual(notifier.topics, []);
});

test("a loop that does not keep up ends with an error", async () => {
  const { notifier } = client();
  const loop = notifier.events();
  const socket = await FakeSocket.next();
  socket.hello();
  for (let offset = 2; offset < 10_010; offset++) socket.event(`a.${offset}`);

  await assert.rejects(loop.next(), { code: "too_slow" });
});

test("a loop that is left ends, and a topic that is unsubscribed from has no position", async () => {
  const { notifier } = client();
  const socket = await FakeSocket.next();
  socket.hello();
  const followed = notifier.subscribe("room:7");
  const { id, topic } = await socket.received("subscribe");
  socket.say({ type: "subscribed", topic, position: "r.3", id });
  await followed;
  const loop = notifier.events();
  socket.event("r.4", "room:7");

  for await (const { position } of loop) {
    assert.equal(position, "r.4");
    break;
  }

  assert.deepEqual(await loop.next(), { value: undefined, done: true });
  notifier.unsubscribe("room:7");
  assert.equal((await socket.received("unsubscribe")).topic, "room:7");
  assert.equal(notifier.cursor["room:7"], undefined);
});
