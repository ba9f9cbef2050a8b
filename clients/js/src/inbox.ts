// The list behind a bell: the newest notifications of the user, and which of them are read.
import type { Notifier } from "./notifier.js";
import type { EventFrame, GapFrame, MarksFrame, Position } from "./types.js";

export interface Item {
  frame: EventFrame;
  isRead: boolean;
}

/** All that a bell and its list show. It is replaced, never changed. */
export interface InboxView {
  items: readonly Item[];
  unread: number;
  /** Whether there may be more unread events than `unread`. */
  more: boolean;
  /** Whether `earlier()` has more to bring. */
  hasEarlier: boolean;
}

export const EMPTY: InboxView = { items: [], unread: 0, more: false, hasEarlier: false };
const PAGE = 20;
const MOST = 500; // items that stay while events arrive; `earlier()` brings the others back
const AGAIN_MS = 3_000;

const offsetOf = (position: Position) => +position.split(".")[1]!;

/** The personal topic's events, but for silent ones. It lists once the client is connected. */
export class Inbox {
  view = EMPTY;
  #frames = new Map<number, EventFrame>(); // by offset, which counts on where an epoch changes
  #before: Position | undefined;
  #hasEarlier = false;
  #isListed = false;
  #user: string | undefined; // whose list it is
  #reading: Promise<void> | undefined;
  #again: ReturnType<typeof setTimeout> | undefined;
  #stops: (() => void)[];

  /** `changed` is called after each change of `view`. */
  constructor(
    private readonly notifier: Notifier,
    private readonly changed: () => void,
  ) {
    this.#stops = [
      notifier.on("event", (frame) => this.#isOurs(frame) && this.#arrived(frame)),
      notifier.on("gap", (frame) => this.#isOurs(frame) && this.#anew()),
      notifier.on("marks", (frame) => this.#isOurs(frame) && this.#show()),
      notifier.on("state", () => this.#list()),
    ];
    this.#list();
  }

  /** Bring the next page of earlier events; rejects where history cannot be had. */
  earlier(): Promise<void> {
    const reading = (this.#reading ??= this.#read().finally(() => {
      if (reading === this.#reading) this.#reading = undefined;
    }));
    return reading;
  }

  markRead(): Promise<void> {
    return this.notifier.markRead();
  }

  markReadOnly({ frame }: Item): Promise<void> {
    return this.notifier.markReadOnly(frame);
  }

  close() {
    for (const stop of this.#stops.splice(0)) stop();
    clearTimeout(this.#again);
  }

  get #topic() {
    return `user:${this.notifier.user}`;
  }

  #isOurs({ topic }: EventFrame | GapFrame | MarksFrame) {
    return topic === this.#topic;
  }

  #list() {
    const { user, state } = this.notifier;
    if (state.phase !== "open") return;
    if (this.#user !== user) this.#isFor(user);
    if (this.#isListed) return;
    this.#isListed = true;
    this.earlier().catch(() => {
      if (this.#stops.length) this.#again = setTimeout(() => this.#anew(), AGAIN_MS * (0.5 + Math.random()));
    });
  }

  // Nothing of a former user may be seen, not even until the list has come.
  #isFor(user: string | undefined) {
    this.#user = user;
    this.#empty();
    this.#show();
  }

  // Events were missed, or could not be had: the list begins anew.
  #anew() {
    this.#empty();
    this.#list();
  }

  #empty() {
    this.#frames = new Map();
    this.#before = this.#reading = undefined;
    this.#hasEarlier = this.#isListed = false;
  }

  async #read() {
    const frames = this.#frames;
    const page = await this.notifier.history({ before: this.#before, limit: PAGE });
    if (frames !== this.#frames) return; // begun anew meanwhile
    this.#before = page.before;
    this.#hasEarlier = page.more;
    this.#add(page.frames.filter((frame) => frame.type === "event"));
  }

  #arrived(frame: EventFrame) {
    if (this.#frames.size >= MOST) {
      const [oldest, next] = [...this.#frames.keys()].sort((one, other) => one - other);
      this.#frames.delete(oldest!);
      this.#before = this.#frames.get(next!)!.position;
      this.#hasEarlier = true;
    }
    this.#add([frame]);
  }

  #add(frames: EventFrame[]) {
    for (const frame of frames) {
      const offset = offsetOf(frame.position);
      if (!frame.event["silent"] && !this.#frames.has(offset)) this.#frames.set(offset, frame);
    }
    this.#show();
  }

  #show() {
    const { read, read_only = [], unread = 0, more = false } = this.notifier.marks[this.#topic] ?? {};
    const [upTo, single] = [read ? offsetOf(read) : 0, new Set(read_only.map(offsetOf))];
    const newestFirst = [...this.#frames].sort(([one], [other]) => other - one);
    const items = newestFirst.map(([offset, frame]) => {
      return { frame, isRead: !!frame.read || offset <= upTo || single.has(offset) };
    });
    this.view = { items, unread, more, hasEarlier: this.#hasEarlier };
    this.changed();
  }
}
