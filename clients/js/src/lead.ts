// The connection, on behalf of one tab or of many: it follows the topics that any tab wants, and tells
// each frame to all tabs, with the position that the frame comes after.
import { Line } from "./line.js";
import type { Link, Settings } from "./link.js";
import type { Positions } from "./positions.js";
import type { Frame, Position, State } from "./types.js";

/** Topics that a tab wants, each with the position to go on from, if it has one. */
export type Wants = Map<string, Position | undefined>;

/** All that tabs are told, or the one tab `to`; `from` has positions that a frame comes after, by topic. */
export type Told = { to?: string } & ({ frame: Frame; from?: Positions } | { state: State });

/** The way from a tab to the connection, its own or another tab's. */
export interface Port {
  start(): void;
  /** Change the topics that the tab wants. */
  _want(wants: Wants): void;
  send(frame: Frame): void;
  _wake(): void;
  close(): void;
}

/** A port is made of these: `positions` are the page's, `hear` listens. */
export type Given = readonly [
  settings: Settings,
  positions: Positions,
  hear: (told: Told) => void,
];

export class Lead extends Line implements Port {
  /** How far this connection has come: each frame of a topic is told with the one before it. */
  _chain: Positions;
  /** The last frames of marks and presence, by type and topic. */
  readonly _last = new Map<string, Frame>();
  #followed = new Set<string>();
  #asked = new Map<string, string>(); // ids of the frames that subscribe, by topic
  #received: Positions = new Map();
  #receipt: ReturnType<typeof setTimeout> | undefined;
  private readonly _tell: Given[2];

  constructor(
    [settings, positions, tell]: Given,
    private readonly _wants = new Map<string, Wants>(), // of each tab
  ) {
    super(settings);
    this._chain = new Map(positions);
    this._tell = tell;
  }

  // Asked for by tabs.

  _want(wants: Wants, tab = "") {
    const before: Wants = this._wants.get(tab) ?? new Map();
    this._wants.set(tab, new Map(wants));
    for (const topic of wants.keys()) {
      if (before.has(topic)) continue;
      // A tab that has an older position sees by itself that it is behind.
      if (!this.#followed.has(topic)) this.#subscribe(topic);
      else this._tell({ frame: { type: "subscribed", topic, position: this._chain.get(topic) } });
    }
    const all = this._topics();
    for (const topic of before.keys()) if (!all.includes(topic)) this.#unsubscribe(topic);
  }

  #subscribe(topic: string) {
    if (this.#asked.has(topic) || this._refresh()) return;
    const [id, since] = [`s${Math.random()}`, this._since().get(topic)];
    this.#asked.set(topic, id);
    if (since) this._chain.set(topic, since);
    this.send({ type: "subscribe", topic, id, ...(since && { since }) });
  }

  #unsubscribe(topic: string) {
    this.#gone(topic);
    if (!this._refresh()) this.send({ type: "unsubscribe", topic, id: "u" });
  }

  #gone(topic: string) {
    this.#followed.delete(topic);
    this.#asked.delete(topic); // an answer that is under way counts no more
    this._chain.delete(topic);
    for (const type of ["marks", "presence"]) this._last.delete(`${type} ${topic}`);
    this._tell({ frame: { type: "unsubscribed", topic } });
  }

  #refused(topic: string, code = "forbidden", message = `the token does not allow topic ${topic}`) {
    for (const wants of this._wants.values()) wants.delete(topic);
    this.#gone(topic);
    this._tell({ frame: { type: "error", topic, code, message } });
  }

  // Asked for, and told, by the line.

  _topics(): string[] {
    return [...new Set([...this._wants.values()].flatMap((wants) => [...wants.keys()]))];
  }

  _since(): Positions {
    const all = [...this._wants.values(), this._chain].flatMap((each) => [...each]);
    return new Map(all.filter((each): each is [string, Position] => !!each[1]));
  }

  _moved(state: State) {
    this._tell({ state });
  }

  _heard(frame: Frame, link: Link) {
    const { type, id, topic, position } = frame as Frame & { topic: string; position: Position };
    const asked = [...this.#asked].find((each) => each[1] === id)?.[0]!;
    this.#asked.delete(asked);
    if (type === "hello") this.#greeted(frame, link);
    else if (type === "error" && asked) this.#notSubscribed(asked, frame);
    else if (type === "error" && !id && / topic \S+$/.test(frame["message"])) return; // told after hello
    else if (type === "unsubscribed") id === undefined && this.#refused(topic);
    else if (topic && position) this.#follow(frame, topic, position, asked);
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

  #follow(frame: Frame, topic: string, position: Position, asked?: string) {
    if (asked) this.#followed.add(asked);
    if (!this.#followed.has(topic)) return; // its last frames were under way
    this._tell({ frame, from: new Map([[topic, this._chain.get(topic)!]]) });
    // Not resumed: the gap is still to come.
    if (frame["resumed"] !== false) this._chain.set(topic, position);
    if (frame["ack"]) this.#receive(topic, position);
  }

  #greeted(frame: Frame, { _target: target }: Link) {
    this.user = frame["user"] ?? this.user;
    this.#asked.clear();
    const starts = Object.entries<{ position: Position; resumed?: boolean }>(frame["topics"]);
    this._chain = new Map(
      starts.map(([topic, { position, resumed }]) => [topic, resumed === false ? target.since.get(topic)! : position]),
    );
    this.#followed = new Set(this._chain.keys());
    this._tell({ frame, from: target.since });
    // Tabs may have changed their wishes since the request was made.
    const wanted = this._topics();
    for (const topic of wanted) {
      if (this.#followed.has(topic)) continue;
      if (target.topics.includes(topic)) this.#refused(topic);
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
    this.#received.set(topic, position);
    this.#receipt ??= setTimeout(() => {
      this.#receipt = undefined;
      for (const [topic, received] of this.#received) this.send({ type: "mark", topic, received });
      this.#received.clear();
    }, 1_000);
  }
}
