// The way to the gateway, where clocks jump and links overlap.
import assert from "node:assert/strict";
import { afterEach, test as testOfNode } from "node:test";
import { FakeSocket, client, closeAll, reached, tokenOf } from "./gateway.mjs";

const test = (name, run) => testOfNode(name, { timeout: 30_000 }, run);
const HOUR = 3_600_000;
const BURST = 200; // frames: more than may be sent at once

afterEach(closeAll);

function jump(t, by) {
  const now = Date.now.bind(Date);
  t.mock.method(Date, "now", () => now() + by);
}

for (const by of [-HOUR, HOUR]) {
  test(`a half-open connection is noticed where the clock jumps by ${by / HOUR} h`, async (t) => {
    client();
    const first = await FakeSocket.next();
    first.hello({}, { heartbeat: 0.02 });
    jump(t, by);

    await first.received("ping");
    (await FakeSocket.next()).hello();

    assert.equal(first.readyState, 3);
  });

  test(`frames are sent at their pace where the clock jumps by ${by / HOUR} h`, async (t) => {
    const { notifier } = client();
    const socket = await FakeSocket.next();
    socket.hello();
    jump(t, by);

    for (let count = 0; count < BURST; count++) notifier.signal("room:7", { type: "typing" });

    for (let count = 0; count < BURST; count++) await socket.received("publish");
  });
}

test("a link that was tried beside another one ends with it", async () => {
  let end;
  const hello = 'data: {"type":"hello","user":"42","heartbeat":25,"topics":{"user:42":{"position":"a.1"}}}\n\n';
  const body = () =>
    new ReadableStream({
      start(stream) {
        stream.enqueue(new TextEncoder().encode(hello));
        end = () => stream.close();
      },
    });
  const { notifier } = client({
    fetch: async () => new Response(body()),
    transports: ["websocket", "sse"],
    timing: { retry: [1, 1, 1], upgrade: [1, 1] },
  });
  (await FakeSocket.next()).end(1006);
  (await FakeSocket.next()).end(1006);
  await reached(notifier, "open");
  const beside = await FakeSocket.next();

  end();
  await reached(notifier, "waiting");

  assert.equal(beside.readyState, 3);
  (await FakeSocket.next()).hello();
  await reached(notifier, "open");
});

test("a connection that says no hello is closed, and another one is opened", async () => {
  const { notifier } = client({ timing: { retry: [1, 1, 1], patience: 20 } });
  const silent = await FakeSocket.next();

  (await FakeSocket.next()).hello();
  await reached(notifier, "open");

  assert.equal(silent.readyState, 3);
});

for (const transports of [["websocket"], ["poll"]]) {
  test(`a listener may close the client as soon as it is open by ${transports}`, async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    let asked = 0;
    const { notifier } = client({
      transports,
      getToken: () => (asked++, tokenOf(2)),
      fetch: async () => Response.json({ frames: [], cursor: "user:42@a.1" }),
    });
    const states = [];
    notifier.on("state", ({ phase }) => {
      states.push(phase);
      if (phase === "open") notifier.close();
    });
    if (transports[0] === "websocket") (await FakeSocket.next()).hello();
    else while (notifier.state.phase !== "stopped") await new Promise(setImmediate);

    t.mock.timers.tick(HOUR);
    await new Promise(setImmediate);

    assert.deepEqual(states, ["connecting", "open", "stopped"]);
    assert.equal(asked, 1);
  });
}
