// Advice on an event that was accepted and that this tab does not get.

import { connection, isOpen } from "./connection.js";
import { positions } from "./cursor.js";
import { part } from "./dom.js";
import { get } from "./http.js";
import { follow } from "./topics.js";

let advised = null; // the topic that is asked or told about

export async function adviseOn(audience, name) {
  const topic = { user: `user:${name}`, topic: name, everyone: "everyone" }[audience];
  if (isOpen() && positions.has(topic)) return;
  advised = topic;
  const { followed } = await get("/dev/followed", { topic });
  if (topic !== advised) return;
  if (audience === "topic") adviseToFollow(topic, followed);
  else if (!followed) adviseToConnect(audience, name);
}

function adviseToFollow(topic, followed) {
  const others = followed ? "Other clients do." : "Nobody else here does.";
  show(`You do not follow ${topic}. ${others} History keeps the event.`);
  part("follow-it").hidden = false;
  part("follow-it").textContent = `Follow ${topic}`;
  part("follow-it").onclick = () => follow(topic);
}

function adviseToConnect(audience, user) {
  const asThem = audience === "user" ? ` as ${user}` : "";
  show(`Nobody is connected here${asThem}. History keeps the event.`);
  part("open-tab").hidden = audience !== "user" || user === connection.user;
  part("open-tab").textContent = `Open a tab as ${user}`;
  part("open-tab").href = `/#user=${encodeURIComponent(user)}`;
}

function show(text) {
  part("advice").hidden = false;
  part("advice-text").textContent = text;
  part("follow-it").hidden = true;
  part("open-tab").hidden = true;
}

// Once the topic is followed the advice no longer holds; the keyboard stays in the form.
export function nowFollowed(topic) {
  if (topic !== advised) return;
  if (part("advice").contains(document.activeElement)) part("send").elements.submit.focus();
  forgetAdvice();
}

export function forgetAdvice() {
  advised = null;
  part("advice").hidden = true;
  part("advice-text").textContent = "";
}
