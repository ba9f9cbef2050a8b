// getToken may give anything: the page that it is on must learn of it.
import assert from "node:assert/strict";
import { afterEach, test as testOfNode } from "node:test";
import { inspect } from "node:util";
import { Notifier } from "../dist/index.js";
import { FakeSocket, client, closeAll, reached, tokenOf } from "./gateway.mjs";

const test = (name, run) => testOfNode(name, { timeout: 30_000 }, run);

afterEach(closeAll);

const HEADER = `Bearer ${tokenOf(600)}`; // once: two tokens may differ in length
const ANSWERS = [
  ["a page", "<!doctype html><title>Sign in</title>", "string of length 37 is no token"],
  ["an object", { token: "x" }, "object of length 15 is no token"],
  ["nothing", undefined, "undefined of length 9 is no token"],
  ["an empty text", "", "string of length 0 is no token"],
  ["a word", "Forbidden", "string of length 9 is no token"],
  ["a header", HEADER, `string of length ${HEADER.length} is no token`],
  ["two lines", "a.b.c\na.b.c\n", "string of length 11 is no token"],
  ["a refusal", Promise.reject(new Error("HTTP 401")), "HTTP 401"],
];
ANSWERS.at(-1)[1].catch(() => {});

for (const [name, answer, reason] of ANSWERS) {
  test(`getToken that gives ${name} is told once, by an error and by the state, until it gives a token`, async () => {
    let asked = 0;
    const getToken = () => (++asked < 4 ? answer : tokenOf(600));
    const { notifier, told } = client({ getToken });

    const waiting = await reached(notifier, "waiting");
    const socket = await FakeSocket.next();
    socket.hello();
    await reached(notifier, "open");

    assert.equal(asked, 4);
    assert.ok(waiting.reason.endsWith(reason), waiting.reason);
    assert.deepEqual(told.map(([name, { code, message }]) => [name, code, message.endsWith(reason)]), [
      ["error", "no_token", true],
    ]);
  });
}

for (const given of ["key_1aB2cD3eF4gH5iJ6", "key 1aB2cD3eF4gH5iJ6", ["key_1aB2cD3eF4gH5iJ6"]]) {
  test(`an error shows nothing of another secret that getToken gives in place of a token: ${JSON.stringify(given)}`, async (t) => {
    const error = t.mock.method(console, "error", () => {});
    const { notifier } = client({ getToken: () => given }, []);

    const waiting = await reached(notifier, "waiting");

    assert.equal(error.mock.callCount(), 1);
    const [told] = error.mock.calls[0].arguments;
    assert.doesNotMatch(inspect([told, waiting]), /key|1aB2/);
  });
}

test("getToken that fails again after it gave a token is told again", async () => {
  const answers = ["", tokenOf(600), "", tokenOf(600)];
  const { told } = client({ getToken: () => answers.shift() });
  const first = await FakeSocket.next();
  first.hello();
  first.end(4001, {});

  (await FakeSocket.next()).hello();

  assert.deepEqual(told.map(([, { code }]) => code), ["no_token", "no_token"]);
});

test("where no page listens, the console has it, and a topic that is refused", async (t) => {
  const error = t.mock.method(console, "error", () => {});
  const answers = ["", tokenOf(600)];
  const { notifier } = client({ getToken: () => answers.shift(), topics: ["staff"] }, []);
  (await FakeSocket.next()).hello();
  await reached(notifier, "open");

  assert.deepEqual(error.mock.calls.map(({ arguments: [it] }) => it.code), ["no_token", "forbidden"]);
});

test("a client that was closed tells nothing of a token that comes too late", async (t) => {
  const error = t.mock.method(console, "error", () => {});
  let refuse;
  const answer = new Promise((_, reject) => (refuse = reject));
  const { notifier, told } = client({ getToken: () => answer });
  await new Promise(setImmediate);
  notifier.close();

  refuse(new Error("late"));
  await new Promise(setImmediate);

  assert.deepEqual(told.map(([name]) => name), ["stopped"]);
  assert.equal(error.mock.callCount(), 0);
});

test("a token that comes slowly is waited for, with one question", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let give;
  let asked = 0;
  const getToken = () => (asked++, new Promise((resolve) => (give = resolve)));
  const { told } = client({ getToken });
  await new Promise(setImmediate);
  t.mock.timers.tick(30_000);
  await new Promise(setImmediate);
  assert.deepEqual(told, []);

  give(tokenOf(600));
  (await FakeSocket.next()).hello();

  assert.equal(asked, 1);
});

for (const url of ["push.example", "//push.example", "/push", "ftp://push.example", "https://", "", "https://a?b", "https://a b"]) {
  test(`the address "${url}" is refused when the client is made`, () => {
    const made = () => new Notifier({ url, WebSocket: FakeSocket, getToken: () => tokenOf(600) });

    assert.throws(made, { name: "TypeError", message: "url: no https:// address" });
  });
}

for (const url of ["https://push.example/path/", "http://127.0.0.1:8000", "ws://[::1]:8000", "wss://push.example", new URL("https://push.example")]) {
  test(`the address ${url} is taken`, async () => {
    client({ url });

    const { url: asked } = await FakeSocket.next();

    assert.equal(asked.host, new URL(url).host);
    assert.match(asked.pathname, /^(\/path)?\/v1\/ws$/);
  });
}
