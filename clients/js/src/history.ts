// Reads of history, loaded when one is asked for.
import { urlOf } from "./link.js";
import { parseCursor } from "./positions.js";
import { refusal, request } from "./requesting.js";
import type { Page } from "./stream.js";
import type { Tokens } from "./tokens.js";
import { NotifierError, type HistoryPage, type Position, type Settings } from "./types.js";

interface Asking extends Settings {
  tokens: Tokens;
}
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
export function readBack(asking: Asking, { topic, before, limit }: Asked): Promise<HistoryPage> {
  return get(asking, { order: "newest", topics: topic, before, limit });
}

/** A page of the events behind a position. Tries until there is an answer, while it `isWanted`. */
export async function readOn(
  asking: Asking,
  topic: string,
  since: Position,
  isWanted: () => boolean,
): Promise<Page> {
  for (;;) {
    try {
      const page = await get(asking, { topics: topic, since: `${topic}@${since}`, limit: 256 });
      return { ...page, at: parseCursor(page.cursor)[topic] };
    } catch (error) {
      const isFinal = error instanceof NotifierError && error.code !== "unavailable";
      if (isFinal || !isWanted()) throw error;
      await new Promise((due) => setTimeout(due, AGAIN_MS * (0.5 + Math.random())));
    }
  }
}

async function get(
  asking: Asking,
  query: Record<string, unknown>,
  isSecond = false,
): Promise<any> {
  const { tokens, fetch } = asking;
  const response = await request({ token: await tokens.get(), fetch }, urlOf(asking, "history", query));
  if (response.ok) return response.json();
  const { code, reason } = await refusal(response);
  if (code !== 4001 || isSecond) throw new NotifierError(CODES[code] ?? "unavailable", reason);
  tokens._forget();
  return get(asking, query, true);
}
