// The face of the package. Each page has one; its cursor is its own, whichever tab has the connection.
import { Alone, type Given, type Port } from "./alone.js";
import type { Told, Wants } from "./lead.js";
import { TIMING } from "./line.js";
import { EventQueue } from "./queue.js";
import { Requests } from "./requests.js";
import { Stream, type Reader } from "./stream.js";
import { Tokens } from "./tokens.js";
import {
  NotifierError,
  type Cursor,
  type EventFrame,
  type Frame,
  type Happenings,
  type HistoryPage,
  type MarksFrame,
  type NotifierOptions,
  type Position,
  type PublishedEvent,
  type State,
  type Timing,
} from "./types.js";

type Listener = (told: any) => void;
const SAVED_EVERY = 1_000;
const page: typeof globalThis | undefined = typeof document === "undefined" ? undefined : globalThis;

export class Notifier {
  state: State = { phase: "connecting" };
  /** The user's id, once it is known. */
  user: string | undefined;
  /** How far the user has read each topic. Frames are replaced, never changed. */
  marks: Readonly<Record<string, MarksFrame>> = {};
  readonly #settings: NotifierOptions & { url: string };
  readonly #timing: Timing;
  readonly #tokens: Tokens;
  readonly #stream: Stream;
  readonly #requests = new Requests((frame) => this.#port?.send(frame));
  readonly #listeners = new Map<string, Set<Listener>>();
  readonly #queues = new Set<EventQueue>();
  readonly #wants: Wants = {};
  readonly #subscribing = new Map<string, { resolve(): void; reject(error: NotifierError): void }[]>();
  #port: Port | undefined;
  #life = 0; // grows with each start and end: an answer to an older one is ignored
  #saving: ReturnType<typeof setTimeout> | undefined;

  /** Connects at once. `on` in the same turn misses nothing. */
  constructor(options: NotifierOptions) {
    const url = `${options.url}`.replace(/^ws/, "http").replace(/\/+$/, "");
    this.#settings = { ...options, url };
    this.#timing = { ...TIMING, ...options.timing };
    this.#tokens = new Tokens(options.getToken, this.#timing.patience);
    this.#stream = new Stream({ ...this.#saved, ...options.since }, this.#reader);
    this.user = options.user;
    for (const topic of options.topics ?? []) this.#wants[topic] = options.since?.[topic];
    page?.addEventListener("online", this.#wake);
    page?.addEventListener("pageshow", this.#shown);
    page?.addEventListener("pagehide", this.#hidden);
    page?.document.addEventListener("visibilitychange", this.#wake);
    void this.#begin();
  }

  // Follow.

  /** Call `listener` from now on; returns how to stop that. */
  on<Name extends keyof Happenings>(name: Name, listener: (told: Happenings[Name]) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** Events from now on, for `for await`; ends with `close()`. Gaps are told by `on("gap", …)`. */
  events(): AsyncIterableIterator<EventFrame> {
    const queue = new EventQueue((left) => this.#queues.delete(left));
    this.#queues.add(queue);
    return queue;
  }

  /** Follow a topic, from `since` on if given; resolves when it is followed, rejects if refused. */
  async subscribe(topic: string, { since }: { since?: Position } = {}): Promise<void> {
    if (topic in this.#wants && !since) return;
    if (since) this.#stream.positions[topic] = since;
    this.#wants[topic] = since;
    const followed = new Promise<void>((resolve, reject) => {
      this.#subscribing.set(topic, [...(this.#subscribing.get(topic) ?? []), { resolve, reject }]);
    });
    this.#port?.want(this.#wants);
    return followed;
  }

  unsubscribe(topic: string) {
    delete this.#wants[topic];
    this.#settle(topic, new NotifierError("unsubscribed", `${topic} was unsubscribed from`));
    this.#port?.want(this.#wants);
  }

  get topics(): string[] {
    return Object.keys(this.#wants);
  }

  /** Where to go on, for `since` of another client. */
  get cursor(): Cursor {
    const followed = Object.entries(this.#stream.positions).filter(([topic]) => this.#follows(topic));
    return Object.fromEntries(followed);
  }

  // Marks.

  /** Unread events of all topics that this page follows; with `more` there may be others. */
  get unread(): { count: number; more: boolean } {
    const all = Object.values(this.marks).filter(({ topic }) => this.#follows(topic));
    const count = all.reduce((sum, { unread }) => sum + unread, 0);
    return { count, more: all.some(({ more }) => more) };
  }

  /** All events up to this one are read; without one, all that this page was told of. */
  async markRead(upTo?: EventFrame | Position, topic = this.#personal): Promise<void> {
    const [at, read] = placeOf(upTo ?? this.#stream.positions[topic], topic);
    if (read) await this.#requests.ask({ type: "mark", topic: at, read });
  }

  /** This single event is read. */
  async markReadOnly(one: EventFrame | Position, topic = this.#personal): Promise<void> {
    const [at, read] = placeOf(one, topic);
    await this.#requests.ask({ type: "mark", topic: at, read_only: [read] });
  }

  // Publish.

  /** Publish once, however often the connection breaks. Resolves to the position, if it is known. */
  async publish(topic: string, event: PublishedEvent): Promise<Position | undefined> {
    const whole = { id: this.#requests.newId(), ...event };
    const answer = await this.#requests.ask({ type: "publish", topic, event: whole });
    return answer["position"];
  }

  /** Tell those who follow the topic at this moment, such as of typing; lost while disconnected. */
  signal(topic: string, event: PublishedEvent) {
    this.#port?.send({ type: "publish", topic, event, ephemeral: true });
  }

  // History.

  /** The newest events before `before`, newest first; of the personal topic unless one is named. */
  async history(asked: { topic?: string; before?: Position; limit?: number } = {}): Promise<HistoryPage> {
    return (await import("./history.js")).readBack(this.#asking, asked);
  }

  // Begin and end.

  /** Connect again after `stopped`, once its remedy was done. */
  start() {
    if (this.#port) this.#port.start();
    else void this.#begin();
  }

  /** Leave. Requests without an answer are rejected; other tabs stay connected. */
  close() {
    this.#leave();
    this.#requests.refuse("the client was closed");
    for (const topic of [...this.#subscribing.keys()]) this.#settle(topic, new NotifierError("stopped", "closed"));
    for (const queue of [...this.#queues]) queue.end();
    if (this.state.phase === "stopped") return;
    this.#moved({ phase: "stopped", code: 1000, reason: "closed", remedy: "Call start()." });
  }

  async #begin() {
    const mine = ++this.#life;
    const { shared = !!page } = this.#settings;
    const given = [this.#settings, this.#tokens, () => this.#stream.positions, this.#hear] as const;
    const port = await (shared ? this.#join(given) : undefined);
    if (mine !== this.#life) return port?.close();
    this.#port = port ?? new Alone(...given);
    this.#port.want(this.#wants);
    this.#port.start();
  }

  // The token tells the user, so tabs can share once there is one.
  async #join(given: Given): Promise<Port | undefined> {
    const mine = this.#life;
    for (let failures = 0; ; failures++) {
      try {
        return await (await import("./tabs.js")).join(...given);
      } catch (error) {
        if (mine !== this.#life) return undefined;
        const [least, , most] = this.#timing.retry;
        const retryMs = Math.min(most, least * 2 ** failures) * (0.5 + Math.random());
        this.#moved({ phase: "waiting", retryMs, reason: `${error}` });
        await new Promise((due) => setTimeout(due, retryMs));
      }
    }
  }

  #leave() {
    this.#life++;
    this.#save();
    this.#port?.close();
    this.#port = undefined;
  }

  #wake = () => {
    if (!page!.document.hidden) this.#port?.wake();
    else this.#save();
  };

  // A page that is kept for the way back must not keep the connection of all tabs.
  #hidden = () => this.#leave();

  #shown = ({ persisted }: PageTransitionEvent) => {
    if (persisted && this.state.phase !== "stopped") void this.#begin();
  };

  // Hear.

  #hear = (told: Told) => {
    if ("frame" in told) this.#heard(told.frame, told.from);
    else if ("chain" in told) this.#joined(told);
    else this.#moved(told.state);
  };

  #joined({ chain, marks, state, user }: Extract<Told, { chain: Cursor }>) {
    this.user = user ?? this.user;
    for (const topic in chain) this.#started(topic, undefined, chain[topic]!);
    for (const frame of marks) this.#marked(frame as unknown as MarksFrame);
    this.#moved(state);
    this.#requests.sendAgain();
  }

  #heard(frame: Frame, from: Cursor) {
    const { type, id, topic } = frame;
    if (type === "hello") this.#greeted(frame, from);
    else if (type === "subscribed") {
      if (frame["resumed"] !== false) this.#started(topic, from[topic], frame["position"]);
      this.#settle(topic);
    } else if (type === "unsubscribed") this.#unfollowed(topic);
    else if (type === "event" || type === "gap") this.#stream.take(frame as unknown as EventFrame, from[topic]);
    else if (type === "marks") this.#marked(frame as unknown as MarksFrame);
    else if (id !== undefined) this.#requests.answered(frame);
    else if (type === "error") this.#complained(frame);
    else if (!topic || this.#follows(topic)) this.#emit(type, frame);
    if (this.#settings.persist) this.#saving ??= setTimeout(() => this.#save(), SAVED_EVERY);
  }

  #greeted(frame: Frame, from: Cursor) {
    this.user = frame["user"] ?? this.user;
    const topics = frame["topics"] as Record<string, { position: Position; resumed?: boolean }>;
    for (const topic in this.#stream.positions) if (!topics[topic]) this.#stream.forget(topic);
    for (const topic in topics) {
      const { position, resumed } = topics[topic]!;
      if (resumed !== false) this.#stream.start(topic, from[topic], position);
      this.#settle(topic);
    }
    this.#requests.sendAgain();
  }

  #started(topic: string, from: Position | undefined, to: Position) {
    this.#stream.start(topic, from, to);
    this.#settle(topic);
  }

  #unfollowed(topic: string) {
    this.#stream.forget(topic);
    const { [topic]: _, ...others } = this.marks;
    this.marks = others;
  }

  #complained({ topic, code, message }: Frame) {
    const error = new NotifierError(code, message);
    const isAwaited = topic && this.#subscribing.has(topic);
    const isOurs = !topic || topic in this.#wants;
    if (topic) delete this.#wants[topic];
    if (isAwaited) this.#settle(topic, error);
    else if (isOurs) this.#emit("error", error);
  }

  #settle(topic: string, error?: NotifierError) {
    const waiting = this.#subscribing.get(topic) ?? [];
    this.#subscribing.delete(topic);
    for (const { resolve, reject } of waiting) error ? reject(error) : resolve();
  }

  #marked(frame: MarksFrame) {
    this.marks = { ...this.marks, [frame.topic]: frame };
    if (this.#follows(frame.topic)) this.#emit("marks", frame);
  }

  #moved(state: State) {
    this.state = state;
    this.#emit("state", state);
    if (state.phase === "stopped") this.#emit("stopped", state);
  }

  #emit(name: string, told: unknown) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(told);
      } catch (error) {
        // A listener that fails must not take an event from the others.
        setTimeout(() => {
          throw error;
        });
      }
    }
  }

  // What the stream asks for.

  #follows = (topic: string) =>
    topic in this.#wants || topic === "everyone" || topic === this.#personal;

  #reader: Reader = {
    wants: this.#follows,
    pass: (frame) => {
      this.#emit(frame.type, frame);
      if (frame.type === "event") for (const queue of [...this.#queues]) queue.push(frame);
    },
    history: async (topic, since) =>
      (await import("./history.js")).readOn(this.#asking, topic, since, () => !!this.#port),
  };

  get #asking() {
    return { ...this.#settings, tokens: this.#tokens };
  }

  // The cursor outlives a reload.

  get #key() {
    return `notifier ${this.#settings.url}`;
  }

  get #saved(): Cursor {
    if (!this.#settings.persist || !page) return {};
    try {
      return JSON.parse(page.sessionStorage.getItem(this.#key) ?? "{}");
    } catch {
      return {};
    }
  }

  #save() {
    clearTimeout(this.#saving);
    this.#saving = undefined;
    if (!this.#settings.persist || !page) return;
    try {
      page.sessionStorage.setItem(this.#key, JSON.stringify(this.cursor));
    } catch {} // storage is full, or not for this page: the cursor ends with it
  }

  get #personal() {
    return `user:${this.user}`;
  }
}

function placeOf(place: EventFrame | Position | undefined, topic: string) {
  return typeof place === "object" ? [place.topic, place.position] : [topic, place];
}
