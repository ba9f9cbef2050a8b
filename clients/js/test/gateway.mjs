// A gateway that a test plays by hand, on a WebSocket that never leaves the process.
import { Notifier } from "../dist/index.js";

export class FakeSocket {
  static all = [];
  static waiting = [];
  readyState = 1;
  sent = [];

  constructor(url, protocols) {
    this.url = new URL(url);
    this.protocols = protocols;
    FakeSocket.all.push(this);
    FakeSocket.waiting.shift()?.(FakeSocket.taken());
  }

  /** The next connection that the client opens. */
  static next() {
    if (FakeSocket.all.length) return Promise.resolve(FakeSocket.taken());
    return new Promise((resolve) => FakeSocket.waiting.push(resolve));
  }

  static taken() {
    return FakeSocket.all.shift();
  }

  get since() {
    return this.url.searchParams.get("since");
  }

  send(text) {
    const frame = JSON.parse(text);
    this.sent.push(frame);
    this.heard?.(frame);
  }

  /** The next frame of a type that the client sends, or one that it has sent. */
  async received(type) {
    for (;;) {
      const at = this.sent.findIndex((frame) => frame.type === type);
      if (at >= 0) return this.sent.splice(at, 1)[0];
      await new Promise((resolve) => (this.heard = resolve));
    }
  }

  close() {
    this.readyState = 3;
  }

  say(...frames) {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  hello(topics = {}, more = {}) {
    const own = { "user:42": { position: "a.1" }, everyone: { position: "b.1" } };
    this.say({ type: "hello", session: "s", user: "42", heartbeat: 25, topics: { ...own, ...topics }, ...more });
  }

  event(position, topic = "user:42", more = {}) {
    this.say({ type: "event", topic, position, event: { id: position, type: "t" }, ...more });
  }

  end(code, bye) {
    if (bye) this.say({ type: "bye", code, reason: "bye", ...bye });
    this.onclose?.({ code, reason: "" });
  }
}

const clients = [];

export function closeAll() {
  for (const notifier of clients.splice(0)) notifier.close();
}

export function tokenOf(seconds, sub = "42") {
  const part = (json) => Buffer.from(JSON.stringify(json)).toString("base64url");
  return `${part({})}.${part({ sub, exp: Date.now() / 1000 + seconds })}.x`;
}

/** A client of it: no waits worth the name, and a list of all that it told. */
export function client(options = {}, listened = ["event", "gap", "marks", "error", "stopped"]) {
  FakeSocket.all = [];
  FakeSocket.waiting = [];
  const notifier = new Notifier({
    url: "https://push.example/",
    getToken: () => tokenOf(600),
    transports: ["websocket"],
    WebSocket: FakeSocket,
    random: () => 0,
    timing: { retry: [1, 1, 1], pong: 20 },
    ...options,
  });
  clients.push(notifier);
  const told = [];
  for (const name of listened) {
    notifier.on(name, (frame) => told.push([name, frame]));
  }
  const ids = () => told.filter(([name]) => name === "event").map(([, { event }]) => event.id);
  return { notifier, told, ids };
}

/** The first state in a phase. */
export function reached(notifier, phase) {
  if (notifier.state.phase === phase) return Promise.resolve(notifier.state);
  return new Promise((resolve) => {
    const stop = notifier.on("state", (state) => {
      if (state.phase !== phase) return;
      stop();
      resolve(state);
    });
  });
}
