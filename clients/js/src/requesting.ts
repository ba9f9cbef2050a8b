// Requests over HTTP, and the meaning of their refusals.
import type { End, Target } from "./link.js";

export function request(
  target: Pick<Target, "token" | "fetch">,
  url: string,
  signal?: AbortSignal,
  accept = "application/json",
  body?: object,
): Promise<Response> {
  const { token, fetch } = target;
  return fetch(url, {
    headers: {
      accept,
      ...(token && { authorization: `Bearer ${token}` }),
      ...(body && { "content-type": "application/json" }),
    },
    credentials: token ? "omit" : "include",
    cache: "no-store",
    ...(signal && { signal }),
    ...(body && { method: "POST", body: JSON.stringify(body) }),
  });
}

const CODES: Record<number, number> = { 400: 4502, 401: 4500, 403: 4501, 429: 4504, 503: 4004 };

/** Only a gateway's refusal counts: a proxy's means that this transport does not get through. */
export async function refusal(response: Response): Promise<End> {
  const isOurs = response.headers.get("content-type")?.startsWith("application/problem+json");
  const problem = isOurs ? await response.json() : {};
  const code = problem.code === "token_expired" ? 4001 : isOurs && CODES[response.status];
  const after = response.headers.get("retry-after");
  return {
    code: code || 1006,
    reason: problem.detail ?? `HTTP ${response.status}`,
    ...(+after! > 0 && { retryMs: +after! * 1000 }),
  };
}
