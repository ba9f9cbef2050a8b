// The face of the package. Each page has one; its cursor is its own, whichever tab has the connection.
import { Lead, type Given, type Port, type Told, type Wants } from "./lead.js";
import type { Settings } from "./link.js";
import type { Positions } from "./positions.js";
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
  type PresenceFrame,
  type PublishedEvent,
  type State,
  type Stopped,
  type Timing,
} from "./types.js";

type Listener = (told: any) => void;
type Start = { position: Position; resumed?: boolean };
const FOLLOWED = ""; // in place of a position to go on from
const MOST_EVENTS = 10_000; // that wait for a loop
const TURNS = ["online", "visibilitychange", "pagehide", "freeze", "pageshow", "resume"]; // of a page's life
const TIMING: Timing = {
  token: 60_000,
  patience: 10_000,
  retry: [500, 1_000, 20_000],
  upgrade: [5_000, 300_000],
  pong: 10_000,
};
const loadHistory = () => import("./history.js");
const page: typeof globalThis | undefined = globalThis.document && globalThis;

export class Notifier {
  state: State = { phase: "connecting" };
  /** The user's id, once it is known. */
  user: string | undefined;
  /** How far the user has read each topic. Frames are replaced, never changed. */
  marks: Readonly<Record<string, MarksFrame>> = Object.create(null);
  /** The members of each topic, with the option `presence`. Frames are replaced, never changed. */
  presence: Readonly<Record<string, PresenceFrame>> = Object.create(null);
  readonly #settings: Settings;
  readonly #stream: Stream;
  readonly #requests = new Requests((frame) => this.#port?.send(frame));
  readonly #listeners = new Map<string, Set<Listener>>();
  readonly #wants: Wants = new Map();
  #port: Port | undefined;
  #life = 0; // grows with each start and end: an answer to an older one is ignored
  #isResting = false;

  /** Connects at once. `on` in the same turn misses nothing. */
  constructor(options: NotifierOptions) {
    const {
      marks = true,
      random = Math.random,
      fetch = globalThis.fetch.bind(globalThis),
      WebSocket = globalThis.WebSocket,
      transports = ["websocket", "sse", "poll"],
    } = options;
    const timing = { ...TIMING, ...options.timing };
    const url = `${options.url}`.replace(/^ws/, "http").replace(/\/+$/, "");
    if (!/^https?:\/\/[^?#\s]+$/.test(url)) throw new TypeError("url: no https:// address");
    const _tokens = new Tokens(options.getToken, timing.token, (error) => {
      if (this.state.phase !== "stopped") this.#tell("error", error);
    });
    this.#settings = { ...options, marks, random, fetch, WebSocket, transports, timing, url, _tokens };
    this.#stream = new Stream(new Map(Object.entries({ ...this.#stored(), ...options.since })), this.#reader);
    this.user = options.user;
    for (const topic of options.topics ?? []) this.#wants.set(topic, this.#stream._positions.get(topic));
    void this.#begin();
  }

  // Follow.

  /** Call `listener` from now on; returns how to stop that. */
  on<Name extends keyof Happenings>(name: Name, listener: (told: Happenings[Name]) => void): () => void {
    return this.#listen(name, listener);
  }

  /** Events from now on, for `for await`; ends with `close()`. Gaps are told by `on("gap", …)`. */
  events(): AsyncGenerator<EventFrame> {
    const waiting: (EventFrame | undefined)[] = []; // without one: the end
    let wake = () => {};
    const hear = (frame?: EventFrame) => {
      if (waiting.push(frame) > MOST_EVENTS) stops[0]!();
      wake();
    };
    const stops = [this.on("event", hear), this.#listen("the end", hear)];
    return (async function* () {
      try {
        while (waiting.length <= MOST_EVENTS) {
          if (!waiting.length) await new Promise<void>((due) => (wake = due));
          const frame = waiting.shift();
          if (!frame) return;
          yield frame;
        }
        throw new NotifierError("too_slow", `${MOST_EVENTS} events wait`);
      } finally {
        for (const stop of stops) stop();
      }
    })();
  }

  /** Follow a topic, from `since` on if given; resolves when it is followed, rejects if refused. */
  async subscribe(topic: string, { since }: { since?: Position } = {}): Promise<void> {
    const { _positions: positions } = this.#stream;
    const own = positions.get(topic);
    if (since) positions.set(topic, since);
    if (this.#wants.get(topic) === FOLLOWED) return this.#stream._start(topic, "", own!);
    this.#wants.set(topic, since);
    return new Promise((resolve, reject) => {
      const stop = this.#listen(`followed ${topic}`, (error) => {
        stop();
        error ? reject(error) : resolve();
      });
      this.#port?._want(this.#wants);
    });
  }

  unsubscribe(topic: string) {
    this.#wants.delete(topic);
    this.#stream._forget(topic);
    this.#settle(topic, new NotifierError("unsubscribed", topic));
    this.#port?._want(this.#wants);
  }

  get topics(): string[] {
    return [...this.#wants.keys()];
  }

  /** Where to go on, for `since` of another client. */
  get cursor(): Cursor {
    return Object.fromEntries(this.#stream._positions);
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
    const [at, read] = placeOf(upTo ?? this.#stream._positions.get(topic), topic);
    if (read) await this.#requests._ask({ type: "mark", topic: at, read });
  }

  /** This single event is read. */
  async markReadOnly(one: EventFrame | Position, topic = this.#personal): Promise<void> {
    const [at, read] = placeOf(one, topic);
    await this.#requests._ask({ type: "mark", topic: at, read_only: [read] });
  }

  // Publish.

  /** Publish once, however often the connection breaks. Resolves to the position, if it is known. */
  async publish(topic: string, event: PublishedEvent): Promise<Position | undefined> {
    const whole = { id: this.#requests._newId(), ...event };
    const answer = await this.#requests._ask({ type: "publish", topic, event: whole });
    return answer["position"];
  }

  /** Tell the topic's followers of this moment, such as of typing; lost while disconnected. */
  signal(topic: string, event: PublishedEvent) {
    this.#port?.send({ type: "publish", topic, event, ephemeral: true });
  }

  // History.

  /** The newest events before `before`, newest first; of the personal topic unless one is named. */
  async history(asked: { topic?: string; before?: Position; limit?: number } = {}): Promise<HistoryPage> {
    return (await loadHistory()).readBack(this.#settings, asked);
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
    for (const name of TURNS) page?.removeEventListener(name, this.#turned, true);
    const error = new NotifierError("stopped", "closed");
    this.#requests._refuse(error);
    for (const topic of this.topics) this.#settle(topic, error);
    this.#emit("the end");
    if (this.state.phase === "stopped") return;
    this.#moved({ phase: "stopped", code: 1000, reason: "closed", remedy: "Call start()." });
  }

  async #begin() {
    const mine = ++this.#life;
    for (const name of TURNS) page?.addEventListener(name, this.#turned, true);
    const given: Given = [this.#settings, this.#stream._positions, this.#hear];
    const { shared = !!page } = this.#settings;
    const tabs = shared ? await import("./tabs.js").catch(() => {}) : undefined;
    const isWanted = () => mine === this.#life;
    const port = await tabs?.join(given, isWanted);
    if (!isWanted()) return port?.close();
    this.#port = port || new Lead(given);
    this.#port._want(this.#wants);
    this.#port.start();
  }

  #leave() {
    this.#life++;
    this.#stored(this.cursor);
    this.#port?.close();
    this.#port = undefined;
  }

  // A page that is frozen, or kept for the way back, must not keep the connection of all tabs.
  #turned = ({ type }: Event) => {
    if (/pagehide|freeze/.test(type)) {
      this.#leave();
      this.#isResting = true;
    } else if (/pageshow|resume/.test(type)) {
      if (this.#isResting && this.state.phase !== "stopped") void this.#begin();
      this.#isResting = false;
    } else if (page!.document.hidden) this.#stored(this.cursor);
    else this.#port?._wake();
  };

  // Hear.

  #hear = (told: Told) => {
    if ("frame" in told) this.#heard(told.frame, told.from);
    else this.#moved(told.state);
  };

  #heard(frame: Frame, from: Positions = new Map()) {
    const { type, id, topic } = frame;
    if (type === "hello") this.#greeted(frame, from);
    else if (type === "subscribed") this.#started(topic, from, frame as unknown as Start);
    else if (type === "unsubscribed") this.#unfollowed(topic);
    else if (type === "event" || type === "gap") this.#stream._take(frame as unknown as EventFrame, from.get(topic));
    else if (type === "marks" || type === "presence") this.#kept(type, frame);
    else if (id !== undefined) this.#requests._answered(frame);
    else if (type === "error") this.#complained(frame);
    else if (!topic || this.#follows(topic)) this.#emit(type, frame);
  }

  #greeted(frame: Frame, from: Positions) {
    const { user = this.user } = frame;
    if ((this.user ?? user) != user) { // the option may be a number
      this.marks = this.presence = Object.create(null);
      this.#requests._refuse(new NotifierError("stopped", "another user"));
    }
    this.user = user;
    for (const topic of this.#stream._positions.keys()) {
      if (!this.#follows(topic)) this.#stream._forget(topic);
    }
    for (const [topic, start] of Object.entries<Start>(frame["topics"])) this.#started(topic, from, start);
    this.#requests._sendAgain();
  }

  // Not resumed: the gap is still to come.
  #started(topic: string, from: Positions, { position, resumed }: Start) {
    if (resumed !== false) this.#stream._start(topic, from.get(topic), position);
    this.#settle(topic);
  }

  #unfollowed(topic: string) {
    this.#stream._forget(topic);
    for (const type of ["marks", "presence"] as const) this.#keep(type, topic);
  }

  #complained({ topic, code, message }: Frame) {
    const error = new NotifierError(code, message);
    const isOurs = this.#wants.delete(topic) || !topic;
    if (!this.#settle(topic, error) && isOurs) this.#tell("error", error);
  }

  /** Whether somebody waited for the topic. */
  #settle(topic: string, error?: NotifierError) {
    if (this.#wants.has(topic)) this.#wants.set(topic, error ? undefined : FOLLOWED);
    return this.#emit(`followed ${topic}`, error);
  }

  #kept(type: "marks" | "presence", frame: Frame) {
    this.#keep(type, frame["topic"], frame);
    if (this.#follows(frame["topic"])) this.#emit(type, frame);
  }

  // Without a prototype, whose members would be topics.
  #keep(type: "marks" | "presence", topic: string, frame?: any) {
    const all: any = { __proto__: null, ...this[type], [topic]: frame };
    if (!frame) delete all[topic];
    this[type] = all;
  }

  #moved(state: State) {
    this.state = state;
    this.#emit("state", state);
    if (state.phase === "stopped") this.#tell("stopped", state);
  }

  // Where nobody listens, a silent refusal would look like no news; `close()` is no refusal.
  #tell(name: "error" | "stopped", told: NotifierError | Stopped) {
    if (!this.#emit(name, told) && told.code !== 1000) console.error(told);
  }

  // No frame has a type with a space: names with one are the client's own.
  #listen(name: string, listener: Listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => {
      if (listeners.delete(listener) && !listeners.size) this.#listeners.delete(name);
    };
  }

  /** Whether anybody listened. */
  #emit(name: string, told?: unknown): boolean {
    const listeners = [...(this.#listeners.get(name) ?? [])];
    for (const listener of listeners) {
      try {
        listener(told);
      } catch (error) {
        // A listener that fails must not take an event from the others.
        setTimeout(() => {
          throw error;
        });
      }
    }
    return !!listeners.length;
  }

  // Asked for by the stream.

  #follows = (topic: string) =>
    this.#wants.has(topic) || topic === "everyone" || topic === this.#personal;

  #reader: Reader = {
    _follows: this.#follows,
    _pass: (frame) => this.#emit(frame.type, frame),
    _catchUp: async (...asked) =>
      (await loadHistory()).catchUp(this.#settings, ...asked, () => !!this.#port),
  };

  // The cursor outlives a reload.

  #stored(cursor?: Cursor): Cursor | undefined {
    const key = `notifier ${this.#settings.url}`;
    if (!this.#settings.persist) return;
    try {
      if (!cursor) return JSON.parse(sessionStorage.getItem(key)!);
      sessionStorage.setItem(key, JSON.stringify(cursor));
    } catch {} // there is none, it is full, or not for this page: the cursor ends with the page
    return;
  }

  get #personal() {
    return `user:${this.user}`;
  }
}

function placeOf(place: EventFrame | Position | undefined, topic: string) {
  return typeof place === "object" ? [place.topic, place.position] : [topic, place];
}
