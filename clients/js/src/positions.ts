// Positions and cursors: their text, and how they compare.
import type { Position } from "./types.js";

/** By topic. A Map, as a topic may be named `constructor` or `__proto__`. */
export type Positions = Map<string, Position>;

/** Whether `own` is in the same stream as `other`, and at least as far. */
export function hasReached(own: Position, other: Position) {
  const [epoch, offset] = own.split(".");
  const [epochOfOther, offsetOfOther] = other.split(".");
  return epoch === epochOfOther && +offset! >= +offsetOfOther!;
}

export const asText = (positions: Positions) => [...positions].map((each) => each.join("@")).join();

/** A topic may have an `@` of its own. */
export function parseCursor(text: string): Positions {
  const positions: Positions = new Map();
  for (const item of text.split(",")) {
    const at = item.lastIndexOf("@");
    if (at > 0) positions.set(item.slice(0, at), item.slice(at + 1));
  }
  return positions;
}
