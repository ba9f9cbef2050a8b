// The shapes that applications see: the frames of docs/protocol.md, options, states and errors.

/** A place in a topic's stream, such as `k3x9q2ab.18`: an epoch, a dot, an offset. */
export type Position = string;

/** Positions by topic: where to go on. */
export type Cursor = Record<string, Position>;

/** CloudEvents 1.0 in JSON. `data` is of your own type. */
export interface CloudEvent<Data = any> {
  specversion: string;
  id: string;
  source: string;
  type: string;
  time?: string;
  subject?: string;
  data?: Data;
  data_base64?: string;
  [attribute: string]: unknown;
}

/** An event of a topic, as it arrives; `read` stands in lists of history alone. */
export interface EventFrame<Data = any> {
  type: "event";
  topic: string;
  position: Position;
  event: CloudEvent<Data>;
  /** The producer wants to know that a device has it: the client marks it received by itself. */
  ack?: boolean;
  read?: boolean;
}

/** Events were missed that history no longer holds: fetch your state anew, then go on. */
export interface GapFrame {
  type: "gap";
  topic: string;
  position: Position;
  reason: "expired" | "restarted" | "lost" | (string & {});
}

/** How far the user has read a topic, and how many events are unread; `more`: there may be others. */
export interface MarksFrame {
  type: "marks";
  topic: string;
  unread: number;
  read?: Position;
  read_only?: Position[];
  more?: boolean;
}

/** A signal to the topic's followers of this moment: no position, no history. */
export interface EphemeralFrame<Data = any> {
  type: "ephemeral";
  topic: string;
  event: CloudEvent<Data>;
}

/** The members of a topic, and the users that have just joined or left. */
export interface PresenceFrame {
  type: "presence";
  topic: string;
  count: number;
  /** All of them; left out where there are more than 1,000. */
  members?: string[];
  joined?: string[];
  left?: string[];
}

/** Any frame from the server: ignore types that you do not know. */
export interface Frame {
  type: string;
  [member: string]: any;
}

/** An event that a client publishes; an `id` is made where none is given. */
export interface PublishedEvent<Data = any> {
  type: string;
  id?: string;
  data?: Data;
  data_base64?: string;
  ttl?: number;
  expires?: string;
  collapse_key?: string;
  silent?: boolean;
  subject?: string;
  datacontenttype?: string;
  dataschema?: string;
  extensions?: Record<string, string | number | boolean>;
}

/** One page of a topic's history, newest event first. Go on with `before` while `more` is true. */
export interface HistoryPage<Data = any> {
  frames: (EventFrame<Data> | GapFrame)[];
  before?: Position;
  more: boolean;
}

export type Transport = "websocket" | "sse" | "poll";

/**
 * `connecting`: the first try, or one after a wait. `open`: events flow by `transport`. `waiting`: the
 * next try comes in `retryMs` milliseconds. `stopped`: nothing happens until `start()`.
 */
export type State =
  | { phase: "connecting" }
  | { phase: "open"; transport: Transport; user: string | undefined }
  | { phase: "waiting"; retryMs: number; reason: string }
  | ({ phase: "stopped" } & Stopped);

/** Why the client gave up, and the remedy; after that, `start()` connects again. */
export interface Stopped {
  /** The close code of docs/protocol.md, such as 4500; 1000 for `close()`. */
  code: number;
  reason: string;
  remedy: string;
}

/** The names that `on` takes, and all that it tells of them. */
export interface Happenings<Data = any> {
  event: EventFrame<Data>;
  gap: GapFrame;
  marks: MarksFrame;
  ephemeral: EphemeralFrame<Data>;
  presence: PresenceFrame;
  state: State;
  stopped: Stopped;
  /**
   * A refusal that answers no request: a topic is not allowed, a token was not taken, or `no_token`: the
   * first of several failures of `getToken`. Where nobody listens the console has it.
   */
  error: NotifierError;
}

export interface NotifierOptions {
  /** The gateway's public address: `https://push.example`. A path before `/v1` is kept. Without a scheme: TypeError. */
  url: string | URL;
  /**
   * Asks your backend for a token. It is asked again when the token runs out. One that rejects,
   * gives no JWT or takes longer than a minute is asked again later. Left out: the cookie `notifier_token` counts.
   */
  getToken?: () => string | Promise<string>;
  /** Topics to follow beside the personal one and `everyone`. */
  topics?: Iterable<string>;
  /** Whether to be told of marks and unread events; `true` unless a page shows neither. */
  marks?: boolean;
  /** Whether to be a member of the topics that the token's claim `presence` names; not by long-poll. */
  presence?: boolean;
  /**
   * Whether all tabs of the user share one connection; `true` in browsers. Tabs of different users
   * never share: the user is taken from the token, or from `user`. Without both there is no sharing.
   */
  shared?: boolean;
  /** The user's id. It lets tabs share without a look at the token, as they must with a cookie. */
  user?: string;
  /** Where to go on, from an earlier client's `cursor`. */
  since?: Cursor;
  /** Whether the cursor outlives a reload, in sessionStorage. */
  persist?: boolean;
  /** The transports that may be used, best first. */
  transports?: readonly Transport[];
  /** A WebSocket class, where the platform has none (Node before 22). */
  WebSocket?: new (url: string, protocols: string[]) => any;
  /** In place of the platform's `fetch`. */
  fetch?: typeof fetch;
  /** In place of Math.random, for tests: spreads the waits between retries. */
  random?: () => number;
  /** Milliseconds; for tests, and networks that need others. */
  timing?: Partial<Timing>;
}

export interface Timing {
  /** Longest wait for a token. */
  token: number;
  /** Longest wait for a connection's `hello`. */
  patience: number;
  /** Least, first and greatest wait before another try. */
  retry: readonly [least: number, first: number, most: number];
  /** First and greatest wait before a better transport is tried again. */
  upgrade: readonly [first: number, most: number];
  /** Longest wait for the answer to a `ping`. */
  pong: number;
}

/** A refusal. `code` is one of docs/protocol.md, such as `forbidden`. */
export class NotifierError extends Error {
  override name = "NotifierError";
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}
