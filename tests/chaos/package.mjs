// Clients of the package for browsers, under Node: all that they tell goes to stdout, a line each.
import { createHmac } from "node:crypto";

const { module, doors, secret, claims, clients } = JSON.parse(process.argv[2]);
const { Notifier } = await import(module);
const TIMING = { retry: [100, 300, 1_500], upgrade: [1_000, 4_000], pong: 5_000 };
process.stdin.on("end", () => process.exit()).resume(); // the campaign is over, however it ended

const encoded = (json) => Buffer.from(JSON.stringify(json)).toString("base64url");

function tokenOf(sub, topics) {
  const now = Math.floor(Date.now() / 1000);
  const body = { ...claims, sub, topics, iat: now, exp: now + 600 };
  const signed = `${encoded({ alg: "HS256", typ: "JWT" })}.${encoded(body)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

// A balancer would choose a gateway for each connection.
function atAnyDoor(address) {
  const url = new URL(address);
  url.host = doors[Math.floor(Math.random() * doors.length)];
  return url;
}

// Node before 22 has none, or hides it: the client does without.
const Socket = globalThis.WebSocket && class extends WebSocket {
  constructor(url, protocols) {
    super(atAnyDoor(url), protocols);
  }
};

function follow(client, since) {
  const { name, user, topics, transports, restless } = client;
  const tell = (frame) => process.stdout.write(`${JSON.stringify({ name, frame })}\n`);
  const notifier = new Notifier({
    url: "http://gateway",
    getToken: () => tokenOf(user, topics),
    fetch: (url, asked) => fetch(atAnyDoor(url), asked),
    WebSocket: Socket,
    timing: TIMING,
    topics,
    transports,
    since,
  });
  for (const type of ["event", "gap"]) notifier.on(type, tell);
  notifier.on("stopped", ({ reason }) => reason === "closed" || tell({ type: "stopped", reason }));
  notifier.on("state", ({ phase }) => {
    // The positions of its `hello` are taken in the same turn.
    if (phase === "open") queueMicrotask(() => tell({ type: "open", cursor: notifier.cursor }));
  });
  if (restless) setTimeout(() => moveOn(client, notifier), 1_000 + Math.random() * 5_000);
}

function moveOn(client, notifier) {
  const { cursor } = notifier;
  notifier.close();
  follow(client, cursor);
}

for (const client of clients) follow(client);
