// The token: asked for once while it is good, and never waited for longer than the patience.
import { NotifierError } from "./types.js";

export interface Claims {
  sub?: string | number;
  iss?: string;
  exp?: number;
}

/** The claims of a JWT; none of a token that is no JWT. Nothing is verified: the gateway does that.
 *  Their bytes stand for characters, as the claims that count are of ASCII. */
export function claimsOf(token: string): Claims {
  try {
    return JSON.parse(atob(token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/"))) as Claims;
  } catch {
    return {};
  }
}

export class Tokens {
  /** How far the server's clock is ahead of this one, in milliseconds. */
  _ahead = 0;
  #token: string | undefined;
  #asked: Promise<string> | undefined;
  #isTold = false; // that there is no token

  constructor(
    private readonly _ask: (() => string | Promise<string>) | undefined,
    private readonly _patience: number,
    private readonly _complain: (error: NotifierError) => void,
  ) {}

  /** Milliseconds until the token expires; infinite where it does not say when. */
  get _left(): number {
    const { exp } = this.#token ? claimsOf(this.#token) : {};
    return exp ? exp * 1000 - Date.now() - this._ahead : Infinity;
  }

  _forget() {
    this.#token = undefined;
  }

  /** A token that is still good, or else a `fresh` one; rejects when none comes in time. */
  async _get(fresh = !(this._left > 5_000 && this._left < Infinity)): Promise<string | undefined> {
    if (!this._ask || !fresh) return this.#token;
    // Several that ask at once share one answer.
    this.#asked ??= inTime(Promise.resolve().then(this._ask), this._patience).finally(() => {
      this.#asked = undefined;
    });
    try {
      this.#token = checked(await this.#asked);
      this.#isTold = false;
    } catch (cause) {
      const error = new NotifierError("no_token", `getToken: ${cause}`);
      if (!this.#isTold) this._complain(error);
      this.#isTold = true;
      throw error;
    }
    return this.#token;
  }
}

// A page that asks the visitor to sign in is a common answer. None of its text is told: it may be a secret.
function checked(token: unknown): string {
  const text = `${token}`.trim(); // a file's last line may end
  if (/^[\w-]+\.[\w-]+\.[\w-]+$/.test(text)) return text;
  throw new TypeError(`${typeof token} of length ${text.length} is no token`);
}

function inTime<T>(answer: Promise<T>, patience: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no answer")), patience);
    answer.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
