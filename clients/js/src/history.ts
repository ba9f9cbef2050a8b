// Reads of history, loaded when one is asked for.
import { urlOf, type Settings } from "./link.js";
import { hasReached, parseCursor } from "./positions.js";
import { refusal, request } from "./requesting.js";
import type { Stream } from "./stream.js";
import { NotifierError, type HistoryPage, type Position } from "./types.js";

interface Asked {
  topic?: string;
  before?: Position;
  limit?: number;
}
const AGAIN_MS = 1_000;
const CODES: Record<number, string> = {
  4500: "unauthorized",
  4501: "forbidden",
  4502: "invalid",
  4504: "too_many",
};

/** A page of the events before `before`, newest first. */
export function readBack(settings: Settings, { topic, before, limit }: Asked): Promise<HistoryPage> {
  return get(settings, { order: "newest", topics: topic, before, limit });
}

/** Pass all behind the stream's position that it has not passed yet, unless it `isOver` meanwhile. */
export async function catchUp(
  settings: Settings,
  stream: Stream,
  topic: string,
  isOver: () => boolean,
  isWanted: () => boolean,
) {
  for (let more = true; more; ) {
    const page = await readOn(settings, topic, stream._positions.get(topic)!, isWanted);
    for (const frame of page.frames) {
      if (isOver()) return;
      const isNew = frame.type === "gap" || !hasReached(stream._positions.get(topic)!, frame.position);
      if (isNew) stream._pass(frame);
    }
    const at = parseCursor(page.cursor).get(topic);
    if (isOver()) return;
    if (at) stream._positions.set(topic, at);
    more = page.more;
  }
}

// Tries until there is an answer, while it `isWanted`.
async function readOn(
  settings: Settings,
  topic: string,
  since: Position,
  isWanted: () => boolean,
): Promise<HistoryPage & { cursor: string }> {
  for (;;) {
    try {
      return await get(settings, { topics: topic, since: `${topic}@${since}`, limit: 256 });
    } catch (error) {
      const isFinal = error instanceof NotifierError && error.code !== "unavailable";
      if (isFinal || !isWanted()) throw error;
      await new Promise((due) => setTimeout(due, AGAIN_MS * (0.5 + Math.random())));
    }
  }
}

async function get(
  settings: Settings,
  query: Record<string, unknown>,
  isSecond = false,
): Promise<any> {
  const { _tokens: tokens, fetch } = settings;
  const response = await request({ token: await tokens._get(), fetch }, urlOf(settings, "history", query));
  if (response.ok) return response.json();
  const { code, reason } = await refusal(response);
  if (code !== 4001 || isSecond) throw new NotifierError(CODES[code] ?? "unavailable", reason);
  tokens._forget();
  return get(settings, query, true);
}
