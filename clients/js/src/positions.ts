// Positions and cursors, as text and as what they mean for one another.
import type { Cursor, Position } from "./types.js";

export const epochOf = (position: Position) => position.slice(0, position.lastIndexOf("."));
export const offsetOf = (position: Position) => +position.slice(position.lastIndexOf(".") + 1);

/** Whether `own` is in the same stream as `other`, and at least as far. */
export const hasReached = (own: Position, other: Position) =>
  epochOf(own) === epochOf(other) && offsetOf(own) >= offsetOf(other);

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
