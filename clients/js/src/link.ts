// One connection by one transport. A link tells of frames and of its end; it never comes back.
import { asText, type Positions } from "./positions.js";
import type { Tokens } from "./tokens.js";
import type { Frame, NotifierOptions, Timing, Transport } from "./types.js";

/** The options with all that was left out. */
export type Settings = Omit<NotifierOptions, "topics" | "since" | "getToken"> &
  Required<Pick<NotifierOptions, "marks" | "transports" | "fetch" | "random">> & {
    url: string;
    timing: Timing;
    _tokens: Tokens;
  };

export interface Target extends Settings {
  token: string | undefined;
  topics: string[];
  since: Positions;
}

/** `code` is a close code: one of docs/protocol.md, or 1006 for a connection that broke or never was. */
export interface End {
  code: number;
  reason: string;
  retryMs?: number;
}

export interface Heard {
  frame(frame: Frame): void;
  /** Bytes came that are no frame. */
  _alive(): void;
  end(end: End): void;
}

export interface Link {
  transport: Transport;
  _target: Target;
  send(frame: Frame): void;
  /** End it. All that is heard of it later must be ignored. */
  close(): void;
}

export const endOf = (bye: Frame): End => ({
  code: bye["code"],
  reason: bye["reason"],
  retryMs: bye["reconnect_after_ms"],
});

export function webSocket(_: "websocket", target: Target, heard: Heard): Link {
  const protocols = ["notifier.v1"];
  if (target.token) protocols.push(`bearer.${target.token}`);
  const socket = new target.WebSocket!(address(target, "ws").replace(/^http/, "ws"), protocols);
  let end: End | undefined;
  socket.onmessage = ({ data }: MessageEvent) => {
    const frame = JSON.parse(data) as Frame;
    if (frame.type === "bye") end = endOf(frame);
    heard.frame(frame);
  };
  // Node tells of a connection that never came to be by an error alone.
  socket.onclose = socket.onerror = ({ code = 1006, reason }: CloseEvent) => heard.end(end ?? { code, reason });
  return {
    transport: "websocket",
    _target: target,
    send: (frame) => socket.readyState === 1 && socket.send(JSON.stringify(frame)),
    close() {
      socket.onclose = socket.onerror = () => {}; // Node tells of an error within `close`
      socket.close(1000);
    },
  };
}

/** An address with those parameters that have a value. */
export function urlOf({ url }: { url: string }, path: string, query: Record<string, unknown>): string {
  // From an object: before 0.80, React Native makes `0=…` of a list.
  const given = Object.fromEntries(Object.entries(query).filter(([, value]) => value));
  return `${url}/v1/${path}?${new URLSearchParams(given as Record<string, string>)}`;
}

export function address(target: Target, path: string, more?: Record<string, string>): string {
  const { topics, since, marks, presence } = target;
  return urlOf(target, path, {
    topics: topics.filter((topic) => !since.has(topic)).join(),
    since: asText(since),
    marks,
    presence: presence && path !== "poll",
    ...more,
  });
}
