// The members of each followed topic, as the server's `presence` frames say.

import { fill, part } from "./dom.js";

const MOST_SHOWN = 10;

const known = new Map(); // topic → { count, names }

// Of more than 1,000 members only their number is told, so names may be missing.
export function told({ topic, count, members, joined = [], left = [] }) {
  const names = new Set(members ?? known.get(topic)?.names);
  for (const name of joined) names.add(name);
  for (const name of left) names.delete(name);
  known.set(topic, { count, names: names.size === count ? names : new Set() });
  showMembers();
}

export function forgetMembers(topics = [...known.keys()]) {
  for (const topic of topics) known.delete(topic);
}

export function showMembers() {
  for (const row of part("topics").children) fill(row, { members: textOf(row.dataset.topic) });
}

function textOf(topic) {
  const { count, names } = known.get(topic) ?? { count: 0, names: new Set() };
  const shown = [...names].sort().slice(0, MOST_SHOWN);
  if (shown.length && shown.length < count) shown.push("…");
  return count ? `${count} here${shown.length ? `: ${shown.join(", ")}` : ""}` : "";
}
