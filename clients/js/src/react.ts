// Hooks for React 18 and newer. StrictMode runs each effect twice, so each effect undoes itself.
import { useEffect, useState, type DependencyList } from "react";
import { EMPTY, Inbox, type InboxView } from "./inbox.js";
import type { Notifier } from "./notifier.js";

export type { Inbox, InboxView, Item } from "./inbox.js";

/** A client for as long as the component is there and `deps` stay; undefined before the first effect. */
export function useNotifier(make: () => Notifier, deps: DependencyList): Notifier | undefined {
  const [notifier, setNotifier] = useState<Notifier>();
  useEffect(() => {
    const made = make();
    setNotifier(made);
    return () => {
      made.close();
      setNotifier(undefined);
    };
  }, deps);
  return notifier;
}

/** The newest notifications and how many are unread, and the inbox that brings earlier ones and marks them. */
export function useInbox(notifier: Notifier | undefined): [view: InboxView, inbox: Inbox | undefined] {
  const [shown, setShown] = useState<[InboxView, Inbox?]>([EMPTY]);
  useEffect(() => {
    if (!notifier) return;
    const inbox = new Inbox(notifier, () => setShown([inbox.view, inbox]));
    setShown([inbox.view, inbox]);
    return () => {
      inbox.close();
      setShown([EMPTY]);
    };
  }, [notifier]);
  return [shown[0], shown[1]];
}
