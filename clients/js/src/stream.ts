// Where a page is in each topic's stream: drops duplicates, and notices when the page is behind.
import { hasReached } from "./positions.js";
import type { Cursor, EventFrame, GapFrame, HistoryPage, Position } from "./types.js";

type Moved = EventFrame | GapFrame;
type Held = [frame: Moved, from: Position | undefined][];

/** A page of history that reaches up to `at`. */
export type Page = HistoryPage & { at?: Position };

export interface Reader {
  /** Whether the page wants the topic's events. */
  _follows(topic: string): boolean;
  /** An event or a gap, in order, once. */
  _pass(frame: Moved): unknown;
  /** Events of history behind a position; rejects only when they cannot be had at all. */
  _history(topic: string, since: Position): Promise<Page>;
}

export class Stream {
  readonly _positions: Cursor;
  // Frames of topics whose history is being read.
  #held = new Map<string, Held>();

  constructor(
    cursor: Cursor,
    private readonly _reader: Reader,
  ) {
    this._positions = { ...cursor };
  }

  /** The connection goes on at `to`, for a request that gave `from`. */
  start(topic: string, from: Position | undefined, to: Position) {
    const own = this._positions[topic];
    if (!this._reader._follows(topic)) return;
    if (!own || own === from) this._positions[topic] = to;
    else if (!hasReached(own, to)) void this.#catchUp(topic);
  }

  /** A frame that comes right after `from` in its topic's stream. */
  _take(frame: Moved, from: Position | undefined) {
    const { topic, position } = frame;
    const own = this._positions[topic];
    const held = this.#held.get(topic);
    if (!this._reader._follows(topic)) return;
    if (held) held.push([frame, from]);
    else if (!own) this._positions[topic] = position;
    else if (frame.type === "event" ? hasReached(own, position) : own === position) return;
    else if (own === from || (from && hasReached(own, from))) this.#pass(frame);
    else {
      void this.#catchUp(topic);
      this.#held.get(topic)!.push([frame, from]);
    }
  }

  _forget(topic: string) {
    delete this._positions[topic];
    this.#held.delete(topic);
  }

  #pass(frame: Moved) {
    this._positions[frame.topic] = frame.position;
    this._reader._pass(frame);
  }

  // History first, then the frames that came meanwhile: those that it had are duplicates by then.
  async #catchUp(topic: string) {
    if (this.#held.has(topic)) return;
    const held: Held = [];
    this.#held.set(topic, held);
    for (let more = true; more; ) {
      const page = await this.#behind(topic, held);
      if (this.#held.get(topic) !== held) return; // no longer followed
      for (const frame of page.frames) this.#passNew(frame);
      this._positions[topic] = page.at ?? this._positions[topic]!;
      more = page.more;
    }
    this.#held.delete(topic);
    for (const [frame, from] of held) this._take(frame, from);
  }

  // History that cannot be had is a gap, up to the frames that came meanwhile.
  #behind(topic: string, held: Held): Promise<Page> {
    const own = this._positions[topic]!;
    return this._reader._history(topic, own).catch(() => {
      const position = held.at(-1)?.[0].position ?? own;
      return { frames: [{ type: "gap", topic, position, reason: "lost" }], more: false };
    });
  }

  #passNew(frame: Moved) {
    const own = this._positions[frame.topic]!;
    if (frame.type === "gap" || !hasReached(own, frame.position)) this.#pass(frame);
  }
}

