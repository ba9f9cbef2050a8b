// The token: asked for once while it is good, and never waited for longer than the patience.
export interface Claims {
  sub?: string | number;
  iss?: string;
  exp?: number;
}

/** The claims of a JWT; none of a token that is no JWT. Nothing is verified: the gateway does that. */
export function claimsOf(token: string): Claims {
  try {
    const bytes = atob(token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/"));
    const text = new TextDecoder().decode(Uint8Array.from(bytes, (each) => each.charCodeAt(0)));
    return JSON.parse(text) as Claims;
  } catch {
    return {};
  }
}

export class Tokens {
  /** How far the server's clock is ahead of this one, in milliseconds. */
  _ahead = 0;
  #token: string | undefined;
  #asked: Promise<string> | undefined;

  constructor(
    private readonly _ask: (() => string | Promise<string>) | undefined,
    private readonly _patience: number,
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
  async get(fresh = !(this._left > 5_000 && this._left < Infinity)): Promise<string | undefined> {
    if (!this._ask || !fresh) return this.#token;
    // Several that ask at once share one answer.
    this.#asked ??= inTime(Promise.resolve().then(this._ask), this._patience).finally(() => {
      this.#asked = undefined;
    });
    return (this.#token = await this.#asked);
  }
}

function inTime<T>(answer: Promise<T>, patience: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("getToken did not answer")), patience);
    answer.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
