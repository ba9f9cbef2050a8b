// The transports over plain HTTP, for networks that let no WebSocket through. Loaded when needed.
import { address, endOf, type End, type Heard, type Link, type Target } from "./link.js";
import { parseCursor } from "./positions.js";
import { refusal, request } from "./requesting.js";
import type { Frame } from "./types.js";

const POLL_SECONDS = 25;
const LONGEST_TEXT = 2 ** 20;
const broke = (reason: unknown): End => ({ code: 1006, reason: `${(reason as Error)?.message ?? reason}` });

export function overHttp(transport: "sse" | "poll", target: Target, heard: Heard): Link {
  const abort = new AbortController();
  const { signal } = abort;
  let posted: Promise<unknown> = Promise.resolve();
  const follow = transport === "sse" ? stream : poll;
  follow(target, heard, signal).then(
    (end) => signal.aborted || heard.end(end),
    (error) => signal.aborted || heard.end(broke(error)),
  );
  return {
    transport,
    _target: target,
    // One after the other: events of a client are published in its order.
    send(frame) {
      posted = posted.then(() => (signal.aborted ? undefined : post(target, frame, heard, signal)));
    },
    close: () => abort.abort(),
  };
}

async function stream(target: Target, heard: Heard, signal: AbortSignal): Promise<End> {
  const response = await request(target, address(target, "sse"), signal, "text/event-stream");
  if (!response.ok || !response.body) return refusal(response);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  for (let text = ""; text.length < LONGEST_TEXT; ) {
    const { done, value } = await reader.read();
    if (done || signal.aborted) break;
    heard._alive();
    const events = (text + decoder.decode(value, { stream: true })).split("\n\n");
    text = events.pop()!;
    for (const event of events) {
      const data = /^data: ?(.*)$/m.exec(event)?.[1];
      const frame = data && (JSON.parse(data) as Frame);
      if (frame && !signal.aborted) heard.frame(frame);
      if (frame && frame.type === "bye") return endOf(frame);
    }
  }
  return broke("the stream ended");
}

// The first answer comes at once: it says that this transport works, and where events follow from.
async function poll(target: Target, heard: Heard, signal: AbortSignal): Promise<End> {
  const asked = { ...target };
  for (let wait = 0, marks = "true"; ; wait = POLL_SECONDS) {
    const more = { wait: `${wait}`, ...(target.marks && { marks }) };
    const response = await request(asked, address(asked, "poll", more), signal);
    if (!response.ok) return refusal(response);
    const answer = await response.json();
    if (signal.aborted) break;
    heard._alive();
    if (!wait) heard.frame(greeting(target, answer));
    for (const frame of answer.frames as Frame[]) {
      heard.frame(frame);
      if (frame.type === "bye") return endOf(frame);
    }
    asked.since = parseCursor(answer.cursor);
    asked.topics = []; // the cursor names them, without those that are not allowed
    marks = answer.marks ?? "true";
  }
  return broke("closed");
}

function greeting(target: Target, answer: { frames: Frame[]; cursor: string }): Frame {
  const gaps = new Set(answer.frames.filter(({ type }) => type === "gap").map((gap) => gap["topic"]));
  const topics = Array.from(parseCursor(answer.cursor), ([topic, position]) => {
    const given = target.since.get(topic);
    return [topic, given ? { position: given, resumed: !gaps.has(topic) } : { position }] as const;
  });
  const personal = topics.map(([topic]) => topic).find((topic) => topic.startsWith("user:"));
  return { type: "hello", user: personal?.slice(5) ?? target.user, heartbeat: POLL_SECONDS, topics: Object.fromEntries(topics) };
}

async function post(target: Target, frame: Frame, heard: Heard, signal: AbortSignal) {
  const { type, id, ...body } = frame;
  try {
    const path = { mark: "marks", publish: "publish" }[type];
    if (!path) throw new Error(`${type} needs a WebSocket`);
    const response = await request(target, `${target.url}/v1/${path}`, signal, undefined, body);
    const answer = await response.json();
    if (signal.aborted) return;
    if (response.ok) {
      if (type === "mark") heard.frame(answer);
      heard.frame({ ...answer, type: type === "mark" ? "marked" : "published", id });
    } else {
      const again = response.status === 429 || response.status === 503;
      heard.frame({ type: "error", id, code: again ? "unavailable" : answer.code, message: answer.detail });
    }
  } catch (error) {
    if (!signal.aborted) heard.frame({ type: "error", id, code: "unavailable", message: `${error}` });
  }
}
