// Reads of history, loaded when one is asked for.
import { refusal, request } from "./requesting.js";
import type { Tokens } from "./tokens.js";
import { NotifierError, type HistoryPage, type NotifierOptions, type Position } from "./types.js";

interface Asking extends Pick<NotifierOptions, "fetch"> {
  url: string;
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
  return get(asking, { order: "newest", topics: topic, before, limit: limit && `${limit}` });
}

/** A page of the events behind a position. Tries until there is an answer, while it `isWanted`. */
export async function readOn(
  asking: Asking,
  topic: string,
  since: Position,
  isWanted: () => boolean,
): Promise<HistoryPage & { cursor: string }> {
  for (;;) {
    try {
      return await get(asking, { topics: topic, since: `${topic}@${since}`, limit: "256" });
    } catch (error) {
      const isFinal = error instanceof NotifierError && error.code !== "unavailable";
      if (isFinal || !isWanted()) throw error;
      await new Promise((due) => setTimeout(due, AGAIN_MS * (0.5 + Math.random())));
    }
  }
}

async function get(
  asking: Asking,
  query: Record<string, string | 0 | undefined>,
  isSecond = false,
): Promise<any> {
  const { url, tokens, fetch = globalThis.fetch.bind(globalThis) } = asking;
  const given = Object.entries(query).filter(([, value]) => value) as [string, string][];
  const address = `${url}/v1/history?${new URLSearchParams(given)}`;
  const response = await request({ token: await tokens.get(), fetch }, address);
  if (response.ok) return response.json();
  const { code, reason } = await refusal(response);
  if (code !== 4001 || isSecond) throw new NotifierError(CODES[code] ?? "unavailable", reason);
  tokens.forget();
  return get(asking, query, true);
}
