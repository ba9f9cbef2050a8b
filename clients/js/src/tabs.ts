// Many tabs, one connection: the tab that holds a Web Lock leads, all others hear it on a channel.
// The browser releases the lock of a tab that is gone, however it went, and gives it to the next.
import { Lead, type Given, type Port, type Told, type Wants } from "./lead.js";
import { claimsOf } from "./tokens.js";
import type { Frame } from "./types.js";

type Said =
  | Told
  | { join?: true; tab: string; wants: Wants }
  | { send: Frame }
  | { wake: true }
  | { led: true; anew?: true };

declare const BUILD: string; // of the package: tabs of two builds may say things differently

const ANSWERED_WITHIN = 5_000; // by a leading tab that is not frozen

/** Tabs share if they are the same user's and ask for the same. Waits for a token while `isWanted`. */
export async function join(given: Given, isWanted: () => boolean): Promise<Port | undefined> {
  const [{ url, marks, presence, user }] = given;
  if (!(await isPossible())) return undefined;
  const { iss, sub = user } = user === undefined ? claimsOf(await tokenFor(given, isWanted)) : {};
  return sub === undefined ? undefined : new Tabs(`notifier ${[BUILD, url, marks, presence, iss, sub]}`, ...given);
}

// Not in each browser, and neither in a sandboxed frame nor where the user blocks storage: both throw there.
async function isPossible() {
  try {
    new BroadcastChannel("notifier").close();
    await navigator.locks.request("notifier", { ifAvailable: true }, () => {});
    return true;
  } catch {
    return false;
  }
}

async function tokenFor([settings, , hear]: Given, isWanted: () => boolean) {
  const [least, , most] = settings.timing.retry;
  for (let ceiling = least; isWanted(); ceiling = Math.min(most, ceiling * 2)) {
    try {
      return (await settings._tokens._get()) ?? "";
    } catch (error) {
      const retryMs = ceiling * (0.5 + settings.random());
      if (isWanted()) hear({ state: { phase: "waiting", retryMs, reason: `${error}` } });
      await new Promise<void>((due) => setTimeout(due, retryMs));
    }
  }
  return "";
}

class Tabs implements Port {
  readonly #given: Given;
  readonly #id = Math.random().toString(36).slice(2);
  readonly #wants = new Map<string, Wants>(); // of each tab
  readonly #channel: BroadcastChannel;
  readonly #waiting = new AbortController();
  #lead: Lead | undefined;
  #release = () => {};
  #doubt: ReturnType<typeof setTimeout> | undefined;
  #isQueued = false;
  #isClosed = false;

  constructor(
    private readonly name: string,
    ...given: Given
  ) {
    this.#given = given;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }: MessageEvent<Said>) => this.#said(data);
    this.#queue();
  }

  start() {
    if (this.#lead) this.#lead.start();
    else this.#say({ join: true, tab: this.#id, wants: this.#own });
    this._wake();
  }

  _want(wants: Wants) {
    this.#changed(this.#id, wants);
    this.#say({ tab: this.#id, wants });
  }

  send(frame: Frame) {
    if (this.#lead) this.#lead.send(frame);
    else this.#say({ send: frame });
  }

  // A hidden tab that leads may be frozen, with its lock: a tab that is looked at takes it away.
  _wake() {
    if (this.#lead) return this.#lead._wake();
    this.#say({ wake: true });
    this.#doubt ??= setTimeout(() => {
      this.#doubt = undefined;
      if (!this.#lead && !document.hidden) void this.#compete({ steal: true });
    }, ANSWERED_WITHIN);
  }

  close() {
    this.#say({ tab: this.#id, wants: new Map() });
    this.#isClosed = true;
    clearTimeout(this.#doubt);
    this.#waiting.abort();
    this.#resign();
    this.#channel.close();
  }

  get #own(): Wants {
    return this.#wants.get(this.#id) ?? new Map();
  }

  #say(said: Said) {
    if (!this.#isClosed) this.#channel.postMessage(said);
  }

  #said(said: Said) {
    if ("frame" in said || "state" in said || "led" in said) {
      clearTimeout(this.#doubt);
      this.#doubt = undefined;
    }
    if ("led" in said) {
      if (said.anew) this.#say({ tab: this.#id, wants: this.#own });
    } else if ("tab" in said) this.#asked(said);
    else if ("send" in said) this.#lead?.send(said.send);
    else if ("wake" in said) this.#woken();
    else if (!said.to || said.to === this.#id) this.#given[2](said);
  }

  #asked({ join, tab, wants }: { join?: true; tab: string; wants: Wants }) {
    if (join && this.#lead) {
      this.#welcome(this.#lead, tab);
      this.#lead.start();
    }
    this.#changed(tab, wants);
  }

  // A tab that has just come is told all that the others know.
  #welcome({ user, _chain, _last, state }: Lead, to: string) {
    const starts = Array.from(_chain, ([topic, position]) => [topic, { position }]);
    this.#say({ to, frame: { type: "hello", user, topics: Object.fromEntries(starts) } });
    for (const frame of _last.values()) this.#say({ to, frame });
    this.#say({ to, state });
  }

  #woken() {
    if (!this.#lead) return;
    this.#lead._wake();
    this.#say({ led: true });
  }

  #changed(tab: string, wants: Wants) {
    if (this.#lead) this.#lead._want(wants, tab);
    else this.#wants.set(tab, new Map(wants));
  }

  #queue() {
    if (this.#isClosed || this.#isQueued) return;
    this.#isQueued = true;
    void this.#compete({ signal: this.#waiting.signal });
  }

  // Ends when the lock is lost: given back, or taken away by another tab.
  async #compete(how: LockOptions) {
    const held = () =>
      new Promise<void>((release) => {
        if (how.signal) this.#isQueued = false;
        this.#takeOver(release);
      });
    try {
      await navigator.locks.request(this.name, how, held);
    } catch {
      if (!this.#lead) return; // no longer waited for
      this.#resign();
      this.#queue();
    }
  }

  #takeOver(release: () => void) {
    this.#release = release;
    if (this.#isClosed || this.#lead) return release();
    const [settings, positions, hear] = this.#given;
    const tell = (told: Told) => {
      if (lead !== this.#lead) return;
      this.#say(told);
      if (!told.to) hear(told);
    };
    const lead: Lead = new Lead([settings, positions, tell], this.#wants);
    this.#lead = lead;
    this.#say({ led: true, anew: true });
    lead.start();
  }

  #resign() {
    const lead = this.#lead;
    this.#lead = undefined; // first, so that nobody hears that this connection ends
    lead?.close();
    this.#release();
  }
}
