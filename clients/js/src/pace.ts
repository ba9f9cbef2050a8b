// A gateway closes a client that sends more than its rate limit: frames wait here before that.
import type { Frame } from "./types.js";

const RATE = 18; // frames a second; gateways allow 20, and ten times as much at once
const BURST = 150;
const BYTES = 800; // count as a frame

export class Pace {
  #waiting: Frame[] = [];
  #room = BURST;
  #at = performance.now(); // a clock that is set back would stop all
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly _pass: (frame: Frame) => void) {}

  _send(frame: Frame) {
    this.#waiting.push(frame);
    this.#pump();
  }

  _clear() {
    this.#waiting = [];
  }

  #pump() {
    const now = performance.now();
    this.#room = Math.min(BURST, this.#room + ((now - this.#at) / 1000) * RATE);
    this.#at = now;
    while (this.#room > 0 && this.#waiting.length) {
      const frame = this.#waiting.shift()!;
      this.#room -= Math.max(1, JSON.stringify(frame).length / BYTES);
      this._pass(frame);
    }
    clearTimeout(this.#timer);
    if (this.#waiting.length) this.#timer = setTimeout(() => this.#pump(), 100);
  }
}
