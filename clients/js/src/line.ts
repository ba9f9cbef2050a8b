// The way to the gateway: one link at a time, and the next one when it ends. While a link is in use,
// a second one may be tried beside it; with its `hello` it takes over, so no event waits for it.
import { webSocket, type End, type Heard, type Link, type Settings, type Target } from "./link.js";
import { Pace } from "./pace.js";
import type { Positions } from "./positions.js";
import type { Frame, State, Transport } from "./types.js";

const STEADY = 5_000; // a connection that lasted so long was no failure
const TICK = 5_000;
const FINAL = 4500; // and above: not again without a remedy
const REMEDIES = [
  "Sign in again",
  "Use another token, or add the origin to NOTIFIER_ALLOWED_ORIGINS",
  "Correct the client",
  "Give getToken or the cookie notifier_token",
  "Close other tabs or devices",
];

type Open = (transport: any, target: Target, heard: Heard) => Link;

export abstract class Line {
  state: State = { phase: "connecting" };
  user: string | undefined;
  #transports: readonly Transport[];
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

  constructor(private readonly _settings: Settings) {
    const { transports, WebSocket } = _settings;
    this.user = _settings.user;
    this.#transports = transports.filter((each) => each !== "websocket" || WebSocket);
  }

  /** All topics to follow but those that each session follows by itself. */
  abstract _topics(): string[];
  abstract _since(): Positions;
  abstract _heard(frame: Frame, link: Link): void;
  abstract _moved(state: State): void;

  /** Connect, unless that is being done. */
  start() {
    if (this.#attempt && this.state.phase !== "stopped") return;
    this.#failures = 0;
    this._settings._tokens._forget();
    void this.#connect();
  }

  /** End silently. */
  close() {
    this.#attempt++;
    this.#drop();
  }

  /** Send a frame, at the pace that gateways allow; a frame is lost with its link. */
  send(frame: Frame) {
    if (this.#current) this.#pace._send(frame);
  }

  /** Follow the present topics, where that takes a new request. False: send frames instead. */
  _refresh(): boolean {
    if (!this.#current || this.#current.transport === "websocket") return false;
    this.#later("refresh", 0, () => this.#connect(this.#current?.transport));
    return true;
  }

  /** The network or the page came back: try now, or see whether the connection still lives. */
  _wake() {
    if (this.state.phase === "waiting" && !this.#cannotWait) void this.#connect();
    else if (this.#current) this.#check();
  }

  // Connect.

  async #connect(transport = this.#choice()) {
    const mine = ++this.#attempt;
    this.#cancel("retry");
    if (!this.#current) this.#move({ phase: "connecting" });
    try {
      const token = await this._settings._tokens._get();
      const open = transport === "websocket" ? webSocket : (await import("./http.js")).overHttp;
      if (mine === this.#attempt) this.#open(transport, token, open);
    } catch (error) {
      if (mine !== this.#attempt) return;
      if (this.#current) this.#later("refresh", this._settings.timing.retry[2], () => this.#connect(transport));
      else this.#failed({ code: 1006, reason: `${error}` });
    }
  }

  // The best one twice, as a gateway that restarts is no reason to leave it; then each in turn.
  #choice(): Transport {
    return this.#transports[Math.max(0, this.#failures - 1) % this.#transports.length]!;
  }

  #open(transport: Transport, token: string | undefined, open: Open) {
    this.#candidate?.close();
    const { _settings: settings, user } = this;
    const target = { ...settings, token, topics: this._topics(), since: this._since(), user };
    const link: Link = open(transport, target, {
      frame: (frame) => this.#heard(link, frame),
      _alive: () => this.#alive(link),
      end: (end) => this.#ended(link, end),
    });
    this.#candidate = link;
    this.#later("hello", this._settings.timing.patience, () =>
      this.#ended(link, { code: 1006, reason: `${transport}: silence` }),
    );
  }

  #heard(link: Link, frame: Frame) {
    if (frame.type === "hello" && link === this.#candidate) return this.#adopt(link, frame);
    if (frame.type === "error" && frame["id"] === undefined) this.#complaint = frame["message"];
    if (link !== this.#current) return;
    this.#alive(link);
    if (frame["id"] === "auth") this.#renewed(frame);
    else if (frame.type !== "pong") this._heard(frame, link);
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
    if (hello["time"]) this._settings._tokens._ahead = Date.parse(hello["time"]) - Date.now();
    this.#heartbeat = hello["heartbeat"] * 1000;
    this.#pace._clear();
    this.#watch();
    this.#renewLater();
    if (link.transport === this.#transports[0]) this.#upgrades = 0;
    else this.#upgradeLater();
    this._heard(hello, link);
    // Unless that made a listener close the client.
    if (link === this.#current) this.#move({ phase: "open", transport: link.transport, user: this.user });
  }

  // End.

  #ended(link: Link, end: End) {
    if (link !== this.#current && link !== this.#candidate) return;
    const isBeside = link === this.#candidate && this.#current;
    if (isBeside && link.transport !== isBeside.transport && end.code < FINAL) {
      link.close();
      this.#candidate = undefined;
      this.#cancel("hello");
      return this.#upgradeLater();
    }
    if (this.#openedAt && Date.now() - this.#openedAt > STEADY) this.#failures = 0;
    this.#failed(end);
  }

  #failed(end: End) {
    const isFinal = end.code >= FINAL;
    const reason = (isFinal && this.#complaint) || end.reason || `closed: ${end.code}`;
    const given = end.retryMs ?? (end.code === 4001 && this.#openedAt ? 0 : undefined);
    this.#drop();
    if (isFinal) {
      this.close();
      const remedy = `${REMEDIES[end.code - FINAL] ?? REMEDIES[2]}, then call start().`;
      return this.#move({ phase: "stopped", code: end.code, reason, remedy });
    }
    if (end.code === 4001) this._settings._tokens._forget();
    const [least, first, most] = this._settings.timing.retry;
    const ceiling = Math.min(most, first * 2 ** this.#failures);
    const retryMs = given ?? least + this._settings.random() * (ceiling - least);
    this.#cannotWait = given !== undefined;
    if (!this.#cannotWait) this.#failures++;
    this.#move({ phase: "waiting", retryMs, reason });
    this.#later("retry", retryMs, () => this.#connect());
  }

  #drop() {
    this.#current?.close();
    this.#candidate?.close();
    this.#current = this.#candidate = undefined;
    this.#openedAt = 0;
    this.#pace._clear();
    this.#cancel(...Object.keys(this.#timers));
  }

  // While it is open.

  // Nothing tells a page that its connection is half-open: silence does, also that of a sleep.
  #watch() {
    this.#later("watch", Math.min(TICK, this.#heartbeat), () => {
      if (Math.abs(Date.now() - this.#heardAt) >= this.#heartbeat) this.#check();
      if (this.#current) this.#watch();
    });
  }

  #check() {
    const link = this.#current!;
    const silence = Math.abs(Date.now() - this.#heardAt); // clocks may be set back
    if (link.transport === "websocket") {
      if (this.#timers["pong"]) return;
      link.send({ type: "ping" });
      this.#later("pong", this._settings.timing.pong, () => this.#ended(link, { code: 1006, reason: "silence" }));
    } else if (silence > this.#heartbeat + this._settings.timing.pong) {
      this.#ended(link, { code: 1006, reason: "silence" });
    }
  }

  #renewLater() {
    const { _left: left } = this._settings._tokens;
    // Spread, so that clients that came together do not renew together.
    const wait = Math.max(1_000, left * (0.7 + 0.1 * this._settings.random()));
    if (left < Infinity) this.#later("renew", wait, () => this.#renew());
  }

  async #renew() {
    const link = this.#current!;
    const token = await this._settings._tokens._get(true).catch(() => undefined);
    if (link !== this.#current) return;
    if (!token) this.#renewed({ type: "error" });
    else if (link.transport === "websocket") link.send({ type: "auth", token, id: "auth" });
    else void this.#connect(link.transport);
  }

  #renewed({ type }: Frame) {
    if (type === "authenticated") this.#renewLater();
    else this.#later("renew", this._settings.timing.retry[2] / 2, () => this.#renew());
  }

  #upgradeLater() {
    const [first, most] = this._settings.timing.upgrade;
    const wait = Math.min(most, first * 2 ** this.#upgrades);
    const present = this.#transports.indexOf(this.#current!.transport);
    const better = this.#transports[this.#upgrades++ % present];
    this.#later("upgrade", wait, () => this.#connect(better));
  }

  #move(state: State) {
    this.state = state;
    this._moved(state);
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
