// Where a page is in each topic's stream: drops duplicates, and notices when the page is behind.
import { hasReached, type Positions } from "./positions.js";
import type { EventFrame, GapFrame, Position } from "./types.js";

type Moved = EventFrame | GapFrame;
type Held = [frame: Moved, from: Position | undefined][];

export interface Reader {
  /** Whether the page wants the topic's events. */
  _follows(topic: string): boolean;
  /** An event or a gap, in order, once. */
  _pass(frame: Moved): unknown;
  /** Pass all of history behind the stream's position; rejects only when it cannot be had at all. */
  _catchUp(stream: Stream, topic: string, isOver: () => boolean): Promise<unknown>;
}

export class Stream {
  // Frames of topics whose history is being read.
  #held = new Map<string, Held>();

  constructor(
    readonly _positions: Positions,
    private readonly _reader: Reader,
  ) {}

  /** The connection goes on at `to`, for a request that gave `from`. */
  _start(topic: string, from: Position | undefined, to: Position) {
    const own = this._positions.get(topic);
    if (!this._reader._follows(topic)) return;
    if (!own || own === from) this._positions.set(topic, to);
    else if (!hasReached(own, to)) void this.#catchUp(topic);
  }

  /** A frame that comes right after `from` in its topic's stream. */
  _take(frame: Moved, from: Position | undefined) {
    const { topic, position } = frame;
    const own = this._positions.get(topic);
    const held = this.#held.get(topic);
    if (!this._reader._follows(topic)) return;
    if (held) held.push([frame, from]);
    else if (!own) this._positions.set(topic, position);
    else if (frame.type === "event" ? hasReached(own, position) : own === position) return;
    else if (own === from || (from && hasReached(own, from))) this._pass(frame);
    else {
      void this.#catchUp(topic);
      this.#held.get(topic)!.push([frame, from]);
    }
  }

  _forget(topic: string) {
    this._positions.delete(topic);
    this.#held.delete(topic);
  }

  _pass(frame: Moved) {
    this._positions.set(frame.topic, frame.position);
    this._reader._pass(frame);
  }

  // History first, then the frames that came meanwhile: those that it had are duplicates by then.
  // History that cannot be had is a gap, up to those frames.
  async #catchUp(topic: string) {
    if (this.#held.has(topic)) return;
    const held: Held = [];
    this.#held.set(topic, held);
    const isOver = () => this.#held.get(topic) !== held; // no longer followed
    const isLost = await this._reader._catchUp(this, topic, isOver).catch(() => true);
    if (isOver()) return;
    this.#held.delete(topic);
    const position = held.at(-1)?.[0].position ?? this._positions.get(topic)!;
    if (isLost) this._pass({ type: "gap", topic, position, reason: "lost" });
    for (const [frame, from] of held) this._take(frame, from);
  }
}

