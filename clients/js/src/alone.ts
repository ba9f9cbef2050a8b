// A page with a connection of its own, and the way to a connection in general.
import { Lead, type Settings, type Told, type Wants } from "./lead.js";
import type { Tokens } from "./tokens.js";
import type { Cursor, Frame } from "./types.js";

/** The way from a tab to the connection, its own or another tab's. */
export interface Port {
  start(): void;
  /** Change the topics that the tab wants. */
  want(wants: Wants): void;
  send(frame: Frame): void;
  wake(): void;
  close(): void;
}

/** What a port is made of: the page's cursor at this moment, and a listener. */
export type Given = readonly [
  settings: Settings,
  tokens: Tokens,
  cursor: () => Cursor,
  hear: (told: Told) => void,
];

export class Alone implements Port {
  readonly #wants = new Map<string, Wants>();
  readonly #lead: Lead;

  constructor(...[settings, tokens, cursor, hear]: Given) {
    this.#lead = new Lead(settings, tokens, cursor(), this.#wants, hear);
  }

  start() {
    this.#lead.line.start();
  }

  want(wants: Wants) {
    const before = this.#wants.get("") ?? {};
    this.#wants.set("", { ...wants });
    this.#lead.wanted(before, wants);
  }

  send(frame: Frame) {
    this.#lead.line.send(frame);
  }

  wake() {
    this.#lead.line.wake();
  }

  close() {
    this.#lead.line.stop();
  }
}
