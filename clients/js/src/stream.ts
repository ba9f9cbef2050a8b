// Where a page is in each topic's stream: drops duplicates, and notices when the page is behind.
import { hasReached, parseCursor } from "./positions.js";
import type { Cursor, EventFrame, GapFrame, HistoryPage, Position } from "./types.js";

type Moved = EventFrame | GapFrame;

export interface Reader {
  /** Whether the page wants the topic's events. */
  wants(topic: string): boolean;
  /** An event or a gap, in order, once. */
  pass(frame: Moved): void;
  /** Events of history behind a position; rejects only when they cannot be had at all. */
  history(topic: string, since: Position): Promise<HistoryPage & { cursor: string }>;
}

export class Stream {
  /** Positions of all topics that the connection follows, also of those for other tabs. */
  readonly positions: Cursor;
  // Frames of topics whose history is being read.
  #held = new Map<string, [frame: Moved, from: Position | undefined][]>();

  constructor(
    cursor: Cursor,
    private readonly reader: Reader,
  ) {
    this.positions = { ...cursor };
  }

  /** The connection goes on at `to`, for a request that gave `from`. */
  start(topic: string, from: Position | undefined, to: Position) {
    const own = this.positions[topic];
    if (!own || own === from || !this.reader.wants(topic)) this.positions[topic] = to;
    else if (!hasReached(own, to)) void this.#catchUp(topic);
  }

  /** A frame that comes right after `from` in its topic's stream. */
  take(frame: Moved, from: Position | undefined) {
    const { topic, position } = frame;
    const own = this.positions[topic];
    const held = this.#held.get(topic);
    if (held) held.push([frame, from]);
    else if (!own || !this.reader.wants(topic)) this.positions[topic] = position;
    else if (frame.type === "event" ? hasReached(own, position) : own === position) return;
    else if (own === from || (from && hasReached(own, from))) this.#pass(frame);
    else {
      void this.#catchUp(topic);
      this.#held.get(topic)!.push([frame, from]);
    }
  }

  forget(topic: string) {
    delete this.positions[topic];
    this.#held.delete(topic);
  }

  #pass(frame: Moved) {
    this.positions[frame.topic] = frame.position;
    this.reader.pass(frame);
  }

  // History first, then the frames that came meanwhile: those that it had are duplicates by then.
  async #catchUp(topic: string) {
    if (this.#held.has(topic)) return;
    const held: [Moved, Position | undefined][] = [];
    this.#held.set(topic, held);
    const isOurs = () => this.#held.get(topic) === held;
    try {
      for (let more = true; more && isOurs(); ) {
        const page = await this.reader.history(topic, this.positions[topic]!);
        if (!isOurs()) return;
        for (const frame of page.frames) this.#passNew(frame);
        this.positions[topic] = parseCursor(page.cursor)[topic] ?? this.positions[topic]!;
        more = page.more;
      }
    } catch {
      const last = held.at(-1)?.[0].position ?? this.positions[topic]!;
      if (isOurs()) this.#pass({ type: "gap", topic, position: last, reason: "lost" });
    }
    if (!isOurs()) return;
    this.#held.delete(topic);
    for (const [frame, from] of held) this.take(frame, from);
  }

  #passNew(frame: Moved) {
    const own = this.positions[frame.topic]!;
    if (frame.type === "gap" || !hasReached(own, frame.position)) this.#pass(frame);
  }
}

