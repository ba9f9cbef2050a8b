// getToken may give anything: the page that it is on must learn of it.
import assert from "node:assert/strict";
import { afterEach, test as testOfNode } from "node:test";
import { Notifier } from "../dist/index.js";
import { FakeSocket, client, closeAll, reached, tokenOf } from "./gateway.mjs";

const test = (name, run) => testOfNode(name, { timeout: 30_000 }, run);
const SHOWN = 20;

afterEach(closeAll);

const ANSWERS = [
  ["a page", "<!doctype html><title>Sign in</title>", '"<!doctype html><titl" is no token'],
  ["an object", { token: "x" }, '"[object Object]" is no token'],
  ["nothing", undefined, '"undefined" is no token'],
  ["an empty text", "", '"" is no token'],
  ["a word", "Forbidden", '"Forbidden" is no token'],
  ["a header", `Bearer ${tokenOf(600)}`, `"${`Bearer ${tokenOf(600)}`.slice(0, SHOWN)}" is no token`],
  ["two lines", "a.b.c\na.b.c\n", `"a.b.c\na.b.c" is no token`],
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

    assert.throws(made, { name: "TypeError", message: /^url: .* is no https:\/\/ address$/ });
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
