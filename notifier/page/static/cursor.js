// The cursor: the topics that this tab follows, each with the position to resume from.

const KEY = "cursor";

export const positions = new Map(); // topic → position

export function followedByItself(topic, user) {
  return topic === "everyone" || topic === `user:${user}`;
}

// What was missed, or the gap, is still on its way: our own position stays right until it is here.
export function startFrom(topic, { position, resumed }) {
  if (resumed === undefined || !positions.has(topic)) positions.set(topic, position);
}

// Forget topics that the connection does not follow, such as those that the token does not allow.
export function keepOnly(topics) {
  for (const topic of positions.keys()) if (!Object.hasOwn(topics, topic)) positions.delete(topic);
}

export function asText() {
  return [...positions].map(([topic, position]) => `${topic}@${position}`).join();
}

// A reload takes the cursor up again. It is the tab's own: a second tab may have another user.

export function keep(user) {
  sessionStorage.setItem(KEY, JSON.stringify({ user, positions: [...positions] }));
}

export function takeUp(user) {
  positions.clear();
  const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  sessionStorage.removeItem(KEY);
  if (kept?.user !== user) return;
  for (const [topic, position] of kept.positions) positions.set(topic, position);
}
