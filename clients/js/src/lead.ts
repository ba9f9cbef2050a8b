// The connection, on behalf of one tab or of many: it follows the topics that any tab wants, and tells
// each frame to all tabs, with the position that the frame comes after.
import { Line } from "./line.js";
import type { Link } from "./link.js";
import type { Tokens } from "./tokens.js";
import type { Cursor, Frame, Position, Settings, State } from "./types.js";

/** Topics that a tab wants, each with the position to go on from, if it has one. */
export type Wants = Record<string, Position | undefined>;

/** All that tabs are told, or the one tab `to`; `from` has positions that a frame comes after, by topic. */
export type Told = { to?: string } & ({ frame: Frame; from?: Cursor } | { state: State });

/** The way from a tab to the connection, its own or another tab's. */
export interface Port {
  start(): void;
  /** Change the topics that the tab wants. */
  _want(wants: Wants): void;
  send(frame: Frame): void;
  _wake(): void;
  close(): void;
}

/** A port is made of these: `cursor` is the page's at the moment of the call, `hear` listens. */
export type Given = readonly [
  settings: Settings,
  tokens: Tokens,
  cursor: () => Cursor,
  hear: (told: Told) => void,
];

export class Lead extends Line implements Port {
  /** How far this connection has come: each frame of a topic is told with the one before it. */
  _chain: Cursor;
  /** The last frames of marks and presence, by type and topic. */
  readonly _last = new Map<string, Frame>();
  #followed = new Set<string>();
  #asked = new Map<string, string>(); // topics that are being subscribed to, by the frame's id
  #received: Cursor = {};
  #receipt: ReturnType<typeof setTimeout> | undefined;
  private readonly _tell: Given[3];

  constructor(
    [settings, tokens, cursor, tell]: Given,
    private readonly _wants = new Map<string, Wants>(), // of each tab
  ) {
    super(settings, tokens);
    this._chain = { ...cursor() };
    this._tell = tell;
  }

  // Asked for by tabs.

  _want(wants: Wants, tab = "") {
    const before = this._wants.get(tab) ?? {};
    this._wants.set(tab, { ...wants });
    for (const topic of Object.keys(wants)) {
      if (topic in before) continue;
      if (this.#followed.has(topic)) this.#subscribed(topic);
      else this.#subscribe(topic);
    }
    const all = this._topics();
    for (const topic of Object.keys(before)) if (!all.includes(topic)) this.#unsubscribe(topic);
  }

  // A tab that has an older position sees by itself that it is behind.
  #subscribed(topic: string) {
    this._tell({ frame: { type: "subscribed", topic, position: this._chain[topic] } });
  }

  #subscribe(topic: string) {
    const isAsked = [...this.#asked.values()].includes(topic);
    if (isAsked || !this._isOpen || this._refresh()) return;
    const [id, since] = [`s${Math.random()}`, this._since()[topic]];
    this.#asked.set(id, topic);
    if (since) this._chain[topic] = since;
    this.send({ type: "subscribe", topic, id, ...(since && { since }) });
  }

  #unsubscribe(topic: string) {
    this.#gone(topic);
    if (!this._refresh()) this.send({ type: "unsubscribe", topic, id: "u" });
  }

  #gone(topic: string) {
    this.#followed.delete(topic);
    delete this._chain[topic];
    for (const type of ["marks", "presence"]) this._last.delete(`${type} ${topic}`);
    this._tell({ frame: { type: "unsubscribed", topic } });
  }

  #refused(topic: string, code = "forbidden", message = `the token does not allow topic ${topic}`) {
    for (const wants of this._wants.values()) delete wants[topic];
    this.#gone(topic);
    this._tell({ frame: { type: "error", topic, code, message } });
  }

  // Asked for, and told, by the line.

  _topics(): string[] {
    return [...new Set([...this._wants.values()].flatMap(Object.keys))];
  }

  _since(): Cursor {
    const cursor: Cursor = {};
    for (const wants of this._wants.values()) {
      for (const [topic, since] of Object.entries(wants)) if (since) cursor[topic] = since;
    }
    return { ...cursor, ...this._chain };
  }

  _moved(state: State) {
    this._tell({ state });
  }

  _heard(frame: Frame, link: Link) {
    const { type, id, topic, position } = frame as Frame & { topic: string; position: Position };
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    if (type === "hello") this.#greeted(frame, link);
    else if (asked && type === "error") this.#notSubscribed(asked, frame);
    else if (type === "error" && !id && / topic \S+$/.test(frame["message"])) return; // told after hello
    else if (type === "unsubscribed") id === undefined && this.#refused(topic);
    else if (topic && position) this.#follow(frame, topic, position);
    else if (type === "marks" || type === "presence") this.#keep(frame);
    else this._tell({ frame });
  }

  #keep(frame: Frame) {
    const { type, topic, joined, left } = frame;
    const key = `${type} ${topic}`;
    if (joined) {
      const members: string[] = this._last.get(key)?.["members"] ?? [];
      frame = { ...frame, members: [...members.filter((user) => !left.includes(user)), ...joined] };
    }
    this._last.set(key, frame);
    this._tell({ frame });
  }

  #follow(frame: Frame, topic: string, position: Position) {
    if (frame.type === "subscribed") this.#followed.add(topic);
    if (!this.#followed.has(topic)) return; // its last frames were under way
    this._tell({ frame, from: { [topic]: this._chain[topic]! } });
    // Not resumed: the gap is still to come.
    if (frame["resumed"] !== false) this._chain[topic] = position;
    if (frame["ack"] === true) this.#receive(topic, position);
  }

  #greeted(frame: Frame, { _target: target }: Link) {
    this.user = frame["user"] ?? this.user;
    this.#asked.clear();
    this._chain = {};
    const starts = Object.entries<{ position: Position; resumed?: boolean }>(frame["topics"]);
    for (const [topic, { position, resumed }] of starts) {
      this._chain[topic] = resumed === false ? target.since[topic]! : position;
    }
    this.#followed = new Set(Object.keys(this._chain));
    this._tell({ frame, from: target.since });
    this.#compare(target.topics);
  }

  // Tabs may have changed their wishes since the request was made.
  #compare(asked: string[]) {
    const wanted = this._topics();
    for (const topic of wanted) {
      if (this.#followed.has(topic)) continue;
      if (asked.includes(topic)) this.#refused(topic);
      else this.#subscribe(topic);
    }
    for (const topic of this.#followed) {
      const isOwn = topic === "everyone" || topic === `user:${this.user}`;
      if (!isOwn && !wanted.includes(topic)) this.#unsubscribe(topic);
    }
  }

  #notSubscribed(topic: string, { code, message }: Frame) {
    if (code === "unavailable") setTimeout(() => this._topics().includes(topic) && this.#subscribe(topic), 3_000);
    else if (!this.#followed.has(topic)) this.#refused(topic, code, message);
  }

  // At most once a second, and with the furthest position alone.
  #receive(topic: string, position: Position) {
    this.#received[topic] = position;
    this.#receipt ??= setTimeout(() => {
      this.#receipt = undefined;
      for (const topic in this.#received) {
        this.send({ type: "mark", topic, received: this.#received[topic] });
      }
      this.#received = {};
    }, 1_000);
  }
}
