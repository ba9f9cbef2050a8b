// <notifier-inbox>: a bell with a badge, and the list of notifications behind it. It makes its parts by
// hand, with a constructed style sheet: the strictest content security policy lets that through.
import { EMPTY, Inbox, type Item } from "./inbox.js";
import type { Notifier } from "./notifier.js";
import type { CloudEvent } from "./types.js";

/** The words of an event for a person. */
export interface Description {
  title: string;
  text?: string;
  /** Where a click leads; only http and https count. */
  href?: string;
}

export const LABELS = {
  title: "Notifications",
  unread: (count: string) => `${count} unread`,
  isUnread: "Unread:",
  markAll: "Mark all as read",
  earlier: "Earlier",
  empty: "Nothing yet",
  failed: "Earlier ones cannot be had now",
};

const STYLE = `
  :host { position: relative; display: inline-block; font: 1rem/1.4 system-ui, sans-serif; }
  :host([hidden]), [hidden] { display: none !important; }
  * { box-sizing: border-box; margin: 0; font: inherit; color: inherit; }
  button { border: 0; background: none; padding: .25rem .5rem; cursor: pointer; border-radius: .375rem; }
  :focus-visible { outline: 2px solid var(--notifier-accent, #4f46e5); outline-offset: 1px; }
  [part=bell] { position: relative; display: block; padding: .5rem; }
  svg { display: block; width: 1.5rem; height: 1.5rem; fill: none; stroke: currentColor; stroke-width: 2; }
  [part=badge] { position: absolute; top: 0; right: 0; min-width: 1.25rem; padding: 0 .3rem; border-radius: 1rem;
    background: var(--notifier-badge, #dc2626); color: var(--notifier-badge-text, #fff); font: bold .75rem/1.25rem system-ui; }
  [part=panel] { position: absolute; z-index: var(--notifier-layer, 1000); top: 100%; right: 0;
    width: min(var(--notifier-width, 22rem), 95vw); max-height: var(--notifier-height, 28rem); overflow: auto; padding: .5rem;
    background: var(--notifier-background, Canvas); color: var(--notifier-text, CanvasText);
    border: 1px solid var(--notifier-border, color-mix(in srgb, currentColor 20%, transparent));
    border-radius: .5rem; box-shadow: 0 .5rem 2rem #0004; }
  [part=panel].rightwards { right: auto; left: 0; }
  [part=header] { display: flex; justify-content: space-between; align-items: center; padding: 0 .5rem .5rem; }
  [part=title] { font-weight: bold; }
  ul { list-style: none; padding: 0; }
  [part~=item] { display: block; width: 100%; padding: .5rem; text-align: start; text-decoration: none; border-radius: .375rem;
    border-inline-start: .25rem solid transparent; }
  [part~=unread] { border-color: var(--notifier-accent, #4f46e5);
    background: color-mix(in srgb, var(--notifier-accent, #4f46e5) 10%, transparent); }
  [part~=item-title] { display: block; font-weight: 600; }
  [part~=item-text], time { display: block; opacity: .75; font-size: .875rem; }
  [part=empty] { padding: 1rem; text-align: center; opacity: .75; }
  .spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`;
const BELL = "M6 16V10a6 6 0 0 1 12 0v6l2 2H4zM10 21h4";
const Base = globalThis.HTMLElement ?? (class {} as typeof HTMLElement); // a server has none

export class NotifierInbox extends Base {
  /** How events are shown; set it before `notifier`. */
  describe: (event: CloudEvent) => Description = ({ type, data }) => ({
    title: `${data?.title ?? type}`,
    text: data?.text,
    href: data?.href,
  });
  #labels = LABELS;
  #notifier: Notifier | undefined;
  #inbox: Inbox | undefined;
  #lines = new Map<string, HTMLElement>(); // by position
  #parts: ReturnType<typeof partsOf> | undefined;

  /** The client whose events are shown. */
  get notifier(): Notifier | undefined {
    return this.#notifier;
  }

  set notifier(notifier: Notifier | undefined) {
    this.#notifier = notifier;
    if (this.isConnected) this.#begin();
  }

  /** The words that are shown, for other languages. */
  get labels(): typeof LABELS {
    return this.#labels;
  }

  set labels(labels: Partial<typeof LABELS>) {
    this.#labels = { ...LABELS, ...labels };
    if (this.#parts) this.#show();
  }

  connectedCallback() {
    this.#parts ??= this.#make();
    document.addEventListener("click", this.#clicked);
    this.#begin();
  }

  disconnectedCallback() {
    document.removeEventListener("click", this.#clicked);
    this.#inbox?.close();
    this.#open(false);
  }

  #begin() {
    this.#inbox?.close();
    this.#inbox = this.#notifier && new Inbox(this.#notifier, () => this.#show());
    this.#lines.clear();
    this.#show();
  }

  #make() {
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    const parts = partsOf(root);
    parts.bell.onclick = () => this.#open(!!parts.panel.hidden);
    parts.markAll.onclick = () => void this.#inbox?.markRead().catch(() => {}); // the badge stays, as it should
    parts.earlier.onclick = () => this.#earlier();
    root.addEventListener("keydown", (event) => this.#pressed(event as KeyboardEvent));
    root.addEventListener("focusout", (event) => this.#left((event as FocusEvent).relatedTarget));
    return parts;
  }

  // Open and close.

  #open(isOpen: boolean) {
    const { bell, panel } = this.#parts!;
    panel.hidden = !isOpen;
    bell.ariaExpanded = `${isOpen}`;
    if (!isOpen) return;
    const { left, right } = bell.getBoundingClientRect();
    panel.classList.toggle("rightwards", left + right < innerWidth); // into the page
    panel.focus();
  }

  #clicked = (event: Event) => {
    if (!event.composedPath().includes(this)) this.#open(false);
  };

  #left(to: EventTarget | null) {
    if (to && !this.shadowRoot!.contains(to as Node)) this.#open(false);
  }

  #pressed(event: KeyboardEvent) {
    const { bell, panel } = this.#parts!;
    if (panel.hidden) return;
    if (event.key === "Escape") {
      this.#open(false);
      bell.focus();
    } else if (!this.#move(event.key)) return;
    event.preventDefault();
  }

  #move(key: string): boolean {
    const all = [...this.#parts!.list.querySelectorAll<HTMLElement>("[part~=item]")];
    const at = all.indexOf(this.shadowRoot!.activeElement as HTMLElement);
    const next = { ArrowDown: at + 1, ArrowUp: Math.max(0, at - 1), Home: 0, End: all.length - 1 }[key];
    all[next ?? -1]?.focus();
    return next !== undefined;
  }

  async #earlier() {
    const { earlier, status } = this.#parts!;
    earlier.disabled = true;
    await this.#inbox?.earlier().catch(() => (status.textContent = this.#labels.failed));
    earlier.disabled = false;
  }

  // Show.

  #show() {
    const { items, unread, more, hasEarlier } = this.#inbox?.view ?? EMPTY;
    const { bell, badge, status, panel, title, markAll, list, earlier, empty } = this.#parts!;
    const labels = this.#labels;
    const count = more ? `${unread}+` : `${unread}`;
    const isUnread = unread > 0 || more;
    badge.hidden = markAll.hidden = !isUnread;
    setText(badge, count);
    setText(status, isUnread ? labels.unread(count) : "");
    bell.ariaLabel = isUnread ? `${labels.title}, ${labels.unread(count)}` : labels.title;
    panel.ariaLabel = labels.title;
    setText(title, labels.title);
    setText(markAll, labels.markAll);
    setText(earlier, labels.earlier);
    setText(empty, labels.empty);
    earlier.hidden = !hasEarlier;
    empty.hidden = items.length > 0;
    this.#fill(list, items);
  }

  // Lines that stay are not moved, so that they keep the focus.
  #fill(list: HTMLElement, items: readonly Item[]) {
    const lines = new Map(items.map((item) => [item.frame.position, this.#line(item)]));
    for (const [position, line] of this.#lines) if (!lines.has(position)) line.remove();
    this.#lines = lines;
    let place = list.firstElementChild;
    for (const line of lines.values()) {
      if (line === place) place = place.nextElementSibling;
      else list.insertBefore(line, place);
    }
  }

  #line(item: Item): HTMLElement {
    const line = this.#lines.get(item.frame.position) ?? this.#newLine(item);
    const [link] = line.children as unknown as [HTMLElement];
    link.setAttribute("part", item.isRead ? "item" : "item unread");
    setText(link.firstElementChild!, item.isRead ? "" : this.#labels.isUnread);
    return line;
  }

  #newLine(item: Item): HTMLElement {
    const { event } = item.frame;
    const { title, text, href } = this.#described(event);
    const link = isWeb(href) ? make("a", "item", { href }) : make("button", "item", { type: "button" });
    link.append(make("span", "", { className: "spoken" }), make("span", "item-title", { textContent: title }));
    if (text) link.append(make("span", "item-text", { textContent: text }));
    if (event.time) {
      const textContent = new Date(event.time).toLocaleString();
      link.append(make("time", "item-time", { dateTime: event.time, textContent }));
    }
    link.onclick = () => this.#chosen(item);
    const line = make("li", "");
    line.append(link);
    return line;
  }

  // One event that is not as the page expects must not empty the list.
  #described(event: CloudEvent): Description {
    try {
      return this.describe(event);
    } catch (error) {
      reportError(error);
      return { title: event.type };
    }
  }

  #chosen(item: Item) {
    void this.#inbox?.markReadOnly(item).catch(() => {});
    this.dispatchEvent(new CustomEvent("choose", { detail: item.frame, bubbles: true, composed: true }));
  }
}

function partsOf(root: ShadowRoot) {
  const bell = make("button", "bell", { type: "button", ariaHasPopup: "dialog", ariaExpanded: "false" });
  const badge = make("span", "badge", { ariaHidden: "true" });
  const status = make("span", "", { className: "spoken", role: "status" });
  const panel = make("div", "panel", { role: "dialog", tabIndex: -1, hidden: true });
  const header = make("div", "header");
  const title = make("span", "title", { role: "heading", ariaLevel: "2" });
  const markAll = make("button", "mark-all", { type: "button" });
  const list = make("ul", "list", { role: "list" }); // some browsers drop the role with the bullets
  const empty = make("p", "empty");
  const earlier = make("button", "earlier", { type: "button" });
  bell.append(drawing(), badge);
  header.append(title, markAll);
  panel.append(header, list, empty, earlier);
  root.append(bell, status, panel);
  return { bell, badge, status, panel, title, markAll, list, empty, earlier };
}

function make<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  part: string,
  members: Partial<HTMLElementTagNameMap[Name]> = {},
): HTMLElementTagNameMap[Name] {
  const element = Object.assign(document.createElement(name), members);
  if (part) element.setAttribute("part", part);
  return element;
}

function drawing(): SVGElement {
  const space = "http://www.w3.org/2000/svg";
  const [svg, path] = [document.createElementNS(space, "svg"), document.createElementNS(space, "path")];
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("part", "icon");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", BELL);
  svg.append(path);
  return svg;
}

// A live region speaks only of changes.
function setText(element: Element, text: string) {
  if (element.textContent !== text) element.textContent = text;
}

// Events come from producers: an address such as javascript: must not run.
function isWeb(href: string | undefined): boolean {
  try {
    return !!href && /^https?:$/.test(new URL(href, document.baseURI).protocol);
  } catch {
    return false;
  }
}

if (globalThis.customElements && !customElements.get("notifier-inbox")) {
  customElements.define("notifier-inbox", NotifierInbox);
}

declare global {
  interface HTMLElementTagNameMap {
    "notifier-inbox": NotifierInbox;
  }
}
