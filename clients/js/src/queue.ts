// Events for a `for await` loop, in a queue that ends rather than grow without bound.
import { NotifierError, type EventFrame } from "./types.js";

const MOST = 10_000;

export class EventQueue implements AsyncIterableIterator<EventFrame> {
  #events: EventFrame[] = [];
  #wake: (() => void) | undefined;
  #end: NotifierError | true | undefined;

  constructor(private readonly left: (queue: EventQueue) => void) {}

  push(event: EventFrame) {
    if (this.#events.push(event) > MOST) {
      this.end(new NotifierError("too_slow", `${MOST} events wait for the loop: it must read faster`));
    }
    this.#wake?.();
  }

  end(why: NotifierError | true = true) {
    this.#end ??= why;
    this.left(this);
    this.#wake?.();
  }

  async next(): Promise<IteratorResult<EventFrame>> {
    while (!this.#events.length && !this.#end) await new Promise<void>((wake) => (this.#wake = wake));
    const value = this.#events.shift();
    if (value) return { value, done: false };
    if (this.#end instanceof NotifierError) throw this.#end;
    return { value: undefined, done: true };
  }

  async return(): Promise<IteratorResult<EventFrame>> {
    this.#events = [];
    this.end();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }
}
