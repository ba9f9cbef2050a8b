// The duties of the tab that has the connection: it follows the topics that any tab wants, and tells
// each frame to all tabs, with the position that the frame comes after.
import { Line, type Host } from "./line.js";
import type { Link } from "./link.js";
import type { Tokens } from "./tokens.js";
import type { Cursor, Frame, NotifierOptions, Position, State } from "./types.js";

/** Topics that a tab wants, each with the position to go on from, if it has one. */
export type Wants = Record<string, Position | undefined>;

/** All that the leading tab says; `from` has positions that a frame comes after, by topic. */
export type Told =
  | { frame: Frame; from: Cursor }
  | { state: State }
  | { to: string; chain: Cursor; marks: Frame[]; state: State; user: string | undefined };

export type Settings = NotifierOptions & { url: string };

export class Lead implements Host {
  readonly line: Line;
  user: string | undefined;
  /** How far this connection has come: each frame of a topic is told with the one before it. */
  #chain: Cursor;
  #marks: Record<string, Frame> = {};
  #followed = new Set<string>();
  #asked = new Map<string, string>(); // topics that are being subscribed to, by the frame's id
  #received: Cursor = {};
  #receipt: ReturnType<typeof setTimeout> | undefined;

  constructor(
    settings: Settings,
    tokens: Tokens,
    cursor: Cursor,
    private readonly wants: Map<string, Wants>,
    private readonly tell: (told: Told) => void,
  ) {
    this.user = settings.user;
    this.#chain = { ...cursor };
    this.line = new Line(settings, tokens, this);
  }

  // What tabs ask for.

  /** Follow what the tabs want by now; `before` and `now` are those of the tab that changed. */
  wanted(before: Wants, now: Wants) {
    for (const topic of Object.keys(now)) {
      if (topic in before) continue;
      if (this.#followed.has(topic)) this.#subscribed(topic);
      else this.#subscribe(topic);
    }
    const all = this.topics();
    for (const topic of Object.keys(before)) if (!all.includes(topic)) this.#unsubscribe(topic);
  }

  snapshot(to: string) {
    const { user, line } = this;
    const marks = Object.values(this.#marks);
    this.tell({ to, chain: { ...this.#chain }, marks, state: line.state, user });
  }

  // A tab that has an older position sees by itself that it is behind.
  #subscribed(topic: string) {
    this.tell({ frame: { type: "subscribed", topic, position: this.#chain[topic] }, from: {} });
  }

  #subscribe(topic: string) {
    const isAsked = [...this.#asked.values()].includes(topic);
    if (isAsked || !this.line.isOpen || this.line.refresh()) return;
    const [id, since] = [`s${Math.random()}`, this.since()[topic]];
    this.#asked.set(id, topic);
    if (since) this.#chain[topic] = since;
    this.line.send({ type: "subscribe", topic, id, ...(since && { since }) });
  }

  #unsubscribe(topic: string) {
    this.#gone(topic);
    if (!this.line.refresh()) this.line.send({ type: "unsubscribe", topic, id: "u" });
  }

  #gone(topic: string) {
    this.#followed.delete(topic);
    delete this.#chain[topic];
    delete this.#marks[topic];
    this.tell({ frame: { type: "unsubscribed", topic }, from: {} });
  }

  #refused(topic: string, code = "forbidden", message = `the token does not allow topic ${topic}`) {
    for (const wants of this.wants.values()) delete wants[topic];
    this.#gone(topic);
    this.tell({ frame: { type: "error", topic, code, message }, from: {} });
  }

  // What the line asks for, and tells.

  topics(): string[] {
    return [...new Set([...this.wants.values()].flatMap(Object.keys))];
  }

  since(): Cursor {
    const cursor: Cursor = {};
    for (const wants of this.wants.values()) {
      for (const [topic, since] of Object.entries(wants)) if (since) cursor[topic] = since;
    }
    return { ...cursor, ...this.#chain };
  }

  moved(state: State) {
    this.tell({ state });
  }

  heard(frame: Frame, link: Link) {
    const { type, id, topic, position } = frame as Frame & { topic: string; position: Position };
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    if (type === "hello") this.#greeted(frame, link);
    else if (asked && type === "error") this.#notSubscribed(asked, frame);
    else if (type === "error" && !id && frame["code"] === "forbidden") return; // told after hello
    else if (type === "unsubscribed") id === undefined && this.#refused(topic);
    else if (topic && position) this.#follow(frame, topic, position);
    else {
      if (type === "marks") this.#marks[topic] = frame;
      this.tell({ frame, from: {} });
    }
  }

  #follow(frame: Frame, topic: string, position: Position) {
    if (frame.type === "subscribed") this.#followed.add(topic);
    if (!this.#followed.has(topic)) return; // its last frames were under way
    const before = this.#chain[topic];
    this.tell({ frame, from: before ? { [topic]: before } : {} });
    // Not resumed: the gap is still to come.
    if (frame["resumed"] !== false) this.#chain[topic] = position;
    if (frame["ack"] === true) this.#receive(topic, position);
  }

  #greeted(frame: Frame, { target }: Link) {
    this.user = frame["user"] ?? this.user;
    this.#asked.clear();
    this.#chain = {};
    const starts = Object.entries<{ position: Position; resumed?: boolean }>(frame["topics"]);
    for (const [topic, { position, resumed }] of starts) {
      this.#chain[topic] = resumed === false ? target.since[topic]! : position;
    }
    this.#followed = new Set(Object.keys(this.#chain));
    this.tell({ frame, from: target.since });
    this.#compare(target.topics);
  }

  // Tabs may have changed their wishes since the request was made.
  #compare(asked: string[]) {
    const wanted = this.topics();
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
    if (code === "unavailable") setTimeout(() => this.topics().includes(topic) && this.#subscribe(topic), 3_000);
    else if (!this.#followed.has(topic)) this.#refused(topic, code, message);
  }

  // At most once a second, and with the furthest position alone.
  #receive(topic: string, position: Position) {
    this.#received[topic] = position;
    this.#receipt ??= setTimeout(() => {
      this.#receipt = undefined;
      for (const topic in this.#received) {
        this.line.send({ type: "mark", topic, received: this.#received[topic] });
      }
      this.#received = {};
    }, 1_000);
  }
}
