// The way to the gateway: one link at a time, and the next one when it ends. While a link is in use,
// a second one may be tried beside it; with its `hello` it takes over, so no event waits for it.
import { webSocket, type End, type Heard, type Link, type Target } from "./link.js";
import { Pace } from "./pace.js";
import type { Tokens } from "./tokens.js";
import type { Cursor, Frame, NotifierOptions, State, Timing, Transport } from "./types.js";

export const TIMING: Timing = {
  patience: 10_000,
  retry: [500, 1_000, 20_000],
  upgrade: [5_000, 300_000],
  pong: 10_000,
};
const STEADY = 5_000; // a connection that lasted so long was no failure
const TICK = 5_000;
const REMEDIES: Record<number, string> = {
  1000: "Call start().",
  4500: "Sign in again: another token is needed. Then call start().",
  4501: "Another token or another page is needed: see NOTIFIER_ALLOWED_ORIGINS.",
  4502: "The client must be changed: it sent too much, or a frame or name that is not allowed.",
  4503: "Give getToken, or set the cookie notifier_token.",
  4504: "Close other tabs or devices of this user, then call start().",
};

export interface Host {
  readonly user: string | undefined;
  /** All topics to follow but those that each session follows by itself. */
  topics(): string[];
  since(): Cursor;
  heard(frame: Frame, link: Link): void;
  moved(state: State): void;
}

type Open = (transport: any, target: Target, heard: Heard) => Link;

export class Line {
  state: State = { phase: "connecting" };
  readonly timing: Timing;
  #transports: readonly Transport[];
  #random: () => number;
  #pace = new Pace((frame) => this.#current?.send(frame));
  #current: Link | undefined;
  #candidate: Link | undefined;
  #attempt = 0; // grows with each connect and stop: an answer to an older one is ignored
  #failures = 0;
  #upgrades = 0;
  #complaint = "";
  #openedAt = 0;
  #heardAt = 0;
  #heartbeat = 25_000;
  #timers: Record<string, ReturnType<typeof setTimeout>> = {};
  #cannotWait = false;

  constructor(
    private readonly options: NotifierOptions & { url: string },
    private readonly tokens: Tokens,
    private readonly host: Host,
  ) {
    this.timing = { ...TIMING, ...options.timing };
    this.#random = options.random ?? Math.random;
    const all = options.transports ?? ["websocket", "sse", "poll"];
    this.#transports = all.filter((each) => each !== "websocket" || this.#webSocket);
  }

  get #webSocket() {
    return this.options.WebSocket ?? globalThis.WebSocket;
  }

  get isOpen() {
    return !!this.#current;
  }

  /** Connect, unless that is being done. */
  start() {
    if (this.#attempt && this.state.phase !== "stopped") return;
    this.#failures = 0;
    this.tokens.forget();
    void this.#connect();
  }

  stop(code = 1000, reason = "closed") {
    this.#attempt++;
    this.#drop();
    this.#cancel(...Object.keys(this.#timers));
    const remedy = REMEDIES[code] ?? REMEDIES[4502]!;
    this.#move({ phase: "stopped", code, reason, remedy });
  }

  /** Send a frame, at the pace that gateways allow; a frame is lost with its link. */
  send(frame: Frame) {
    if (this.#current) this.#pace.send(frame);
  }

  /** Follow the present topics, where that takes a new request. False: send frames instead. */
  refresh(): boolean {
    if (!this.#current || this.#current.transport === "websocket") return false;
    this.#later("refresh", 0, () => this.#connect(this.#current?.transport));
    return true;
  }

  /** The network or the page came back: try now, or see whether the connection still lives. */
  wake() {
    if (this.state.phase === "waiting" && !this.#cannotWait) void this.#connect();
    else if (this.#current) this.#check();
  }

  // Connect.

  async #connect(transport = this.#choice()) {
    const mine = ++this.#attempt;
    this.#cancel("retry");
    if (!this.#current) this.#move({ phase: "connecting" });
    try {
      const token = await this.tokens.get();
      const open = transport === "websocket" ? webSocket : (await import("./http.js")).overHttp;
      if (mine === this.#attempt) this.#open(transport, token, open);
    } catch (error) {
      if (mine !== this.#attempt) return;
      if (this.#current) this.#later("refresh", this.timing.retry[2], () => this.#connect(transport));
      else this.#failed({ code: 1006, reason: `${error}` });
    }
  }

  // The best one twice, as a gateway that restarts is no reason to leave it; then each in turn.
  #choice(): Transport {
    const turn = this.#failures < 2 ? 0 : this.#failures - 1;
    return this.#transports[turn % this.#transports.length]!;
  }

  #open(transport: Transport, token: string | undefined, open: Open) {
    this.#candidate?.close();
    const { marks = true, url, fetch = globalThis.fetch.bind(globalThis) } = this.options;
    const { host } = this;
    const target = {
      ...{ url, token, marks, fetch, WebSocket: this.#webSocket },
      ...{ topics: host.topics(), since: host.since(), user: host.user },
    };
    const link: Link = open(transport, target, {
      frame: (frame) => this.#heard(link, frame),
      alive: () => this.#alive(link),
      end: (end) => this.#ended(link, end),
    });
    this.#candidate = link;
    this.#later("hello", this.timing.patience, () =>
      this.#ended(link, { code: 1006, reason: `${transport}: no hello in time` }),
    );
  }

  #heard(link: Link, frame: Frame) {
    if (frame.type === "hello" && link === this.#candidate) this.#adopt(link, frame);
    if (frame.type === "error" && frame["id"] === undefined) this.#complaint = frame["message"];
    if (link !== this.#current) return;
    this.#alive(link);
    if (frame["id"] === "auth") this.#renewed(frame);
    else if (frame.type !== "pong") this.host.heard(frame, link);
  }

  #alive(link: Link) {
    if (link !== this.#current) return;
    this.#heardAt = Date.now();
    this.#cancel("pong");
  }

  #adopt(link: Link, hello: Frame) {
    this.#cancel("hello", "pong");
    this.#current?.close();
    this.#current = link;
    this.#candidate = undefined;
    this.#complaint = "";
    this.#openedAt = this.#heardAt = Date.now();
    if (hello["time"]) this.tokens.ahead = Date.parse(hello["time"]) - Date.now();
    this.#heartbeat = (hello["heartbeat"] ?? 25) * 1000;
    this.#pace.clear();
    this.#move({ phase: "open", transport: link.transport, user: hello["user"] });
    this.#watch();
    this.#renewLater();
    if (link.transport === this.#transports[0]) this.#upgrades = 0;
    else this.#upgradeLater();
  }

  // End.

  #ended(link: Link, end: End) {
    if (link !== this.#current && link !== this.#candidate) return;
    link.close();
    this.#cancel("hello");
    const isBeside = this.#current && link === this.#candidate;
    this.#candidate = undefined;
    if (isBeside && link.transport !== this.#current!.transport && end.code < 4500) {
      this.#upgradeLater();
      return;
    }
    if (this.#openedAt && Date.now() - this.#openedAt > STEADY) this.#failures = 0;
    this.#failed(end);
  }

  #failed(end: End) {
    const isFinal = end.code >= 4500 && end.code < 5000;
    const reason = (isFinal && this.#complaint) || end.reason || `closed with ${end.code}`;
    const isBrief = end.code === 4001 && this.#openedAt;
    this.#drop();
    if (isFinal) return this.stop(end.code, reason);
    if (end.code === 4001) this.tokens.forget();
    const [least, first, most] = this.timing.retry;
    const ceiling = Math.min(most, first * 2 ** this.#failures);
    const jitter = least + this.#random() * Math.max(0, ceiling - least);
    const retryMs = end.retryMs ?? (isBrief ? 0 : jitter);
    if (end.retryMs === undefined && !isBrief) this.#failures++;
    this.#cannotWait = end.retryMs !== undefined;
    this.#move({ phase: "waiting", retryMs, reason });
    this.#later("retry", retryMs, () => this.#connect());
  }

  #drop() {
    this.#current?.close();
    this.#candidate?.close();
    this.#current = this.#candidate = undefined;
    this.#openedAt = 0;
    this.#pace.clear();
    this.#cancel("hello", "pong", "watch", "renew", "upgrade", "refresh");
  }

  // While it is open.

  // Nothing tells a page that its connection is half-open: silence does, and a clock that jumped.
  #watch() {
    const began = Date.now();
    this.#later("watch", Math.min(TICK, this.#heartbeat), () => {
      const hasSlept = Date.now() - began > 4 * TICK;
      if (hasSlept || Date.now() - this.#heardAt >= this.#heartbeat) this.#check();
      if (this.#current) this.#watch();
    });
  }

  #check() {
    const link = this.#current!;
    const silence = Date.now() - this.#heardAt;
    if (link.transport === "websocket") {
      if (this.#timers["pong"]) return;
      link.send({ type: "ping" });
      this.#later("pong", this.timing.pong, () => this.#ended(link, { code: 1006, reason: "no pong" }));
    } else if (silence > this.#heartbeat + this.timing.pong) {
      this.#ended(link, { code: 1006, reason: "silence" });
    }
  }

  #renewLater() {
    const { left } = this.tokens;
    // Spread, so that clients that came together do not renew together.
    const wait = Math.max(1_000, left * (0.7 + 0.1 * this.#random()));
    if (left < Infinity) this.#later("renew", wait, () => this.#renew());
  }

  async #renew() {
    const link = this.#current!;
    const token = await this.tokens.get(true).catch(() => undefined);
    if (link !== this.#current) return;
    if (!token) this.#renewed({ type: "error" });
    else if (link.transport === "websocket") link.send({ type: "auth", token, id: "auth" });
    else void this.#connect(link.transport);
  }

  #renewed({ type }: Frame) {
    if (type === "authenticated") this.#renewLater();
    else this.#later("renew", this.timing.retry[2] / 2, () => this.#renew());
  }

  #upgradeLater() {
    const [first, most] = this.timing.upgrade;
    const wait = Math.min(most, first * 2 ** this.#upgrades++);
    const better = this.#transports.indexOf(this.#current!.transport);
    const next = this.#upgrades % 2 ? 0 : Math.max(0, better - 1);
    this.#later("upgrade", wait, () => this.#connect(this.#transports[next]));
  }

  #move(state: State) {
    this.state = state;
    this.host.moved(state);
  }

  #later(name: string, wait: number, act: () => unknown) {
    this.#cancel(name);
    const due = () => {
      delete this.#timers[name];
      act();
    };
    this.#timers[name] = setTimeout(due, Math.min(wait, 2 ** 31 - 1));
  }

  #cancel(...names: string[]) {
    for (const name of names) {
      clearTimeout(this.#timers[name]);
      delete this.#timers[name];
    }
  }
}
