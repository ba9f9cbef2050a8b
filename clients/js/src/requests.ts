// Frames that wait for an answer. They are sent again after each `hello`, in their order: marks only
// move forward, and an event with the same id is published once.
import { NotifierError, type Frame } from "./types.js";

const MOST = 1_000;
const AGAIN_MS = 3_000;
const LARGEST = 65_536; // bytes of a frame

interface Waiting {
  frame: Frame;
  resolve(answer: Frame): void;
  reject(error: NotifierError): void;
}

export class Requests {
  readonly #name = Math.random().toString(36).slice(2);
  #waiting = new Map<string, Waiting>();
  #last = 0;

  constructor(private readonly _send: (frame: Frame) => void) {}

  _newId() {
    return `${this.#name}-${++this.#last}`;
  }

  _ask(asked: Frame): Promise<Frame> {
    const frame = { ...asked, id: this._newId() };
    if (this.#waiting.size >= MOST) throw new NotifierError("too_many", `${MOST} requests wait`);
    if (encodeURI(JSON.stringify(frame)).replace(/%../g, "-").length > LARGEST) {
      throw new NotifierError("too_large", `at most ${LARGEST} bytes`);
    }
    return new Promise((resolve, reject) => {
      this.#waiting.set(frame.id, { frame, resolve, reject });
      this._send(frame);
    });
  }

  _answered(answer: Frame) {
    const waiting = this.#waiting.get(answer["id"]);
    if (!waiting) return;
    if (answer.type === "error" && answer["code"] === "unavailable") {
      setTimeout(() => this.#waiting.has(waiting.frame["id"]) && this._send(waiting.frame), AGAIN_MS);
      return;
    }
    this.#waiting.delete(answer["id"]);
    if (answer.type === "error") waiting.reject(new NotifierError(answer["code"], answer["message"]));
    else waiting.resolve(answer);
  }

  _sendAgain() {
    for (const { frame } of this.#waiting.values()) this._send(frame);
  }

  _refuse(error: NotifierError) {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
