// Positions and cursors: their text, and how they compare.
import type { Cursor, Position } from "./types.js";

/** Whether `own` is in the same stream as `other`, and at least as far. */
export function hasReached(own: Position, other: Position) {
  const [epoch, offset] = own.split(".");
  const [epochOfOther, offsetOfOther] = other.split(".");
  return epoch === epochOfOther && +offset! >= +offsetOfOther!;
}

export const asText = (cursor: Cursor) =>
  Object.entries(cursor)
    .map(([topic, position]) => `${topic}@${position}`)
    .join();

/** A topic may have an `@` of its own. */
export function parseCursor(text: string): Cursor {
  const cursor: Cursor = {};
  for (const item of text.split(",")) {
    const at = item.lastIndexOf("@");
    if (at > 0) cursor[item.slice(0, at)] = item.slice(at + 1);
  }
  return cursor;
}
