export { Notifier } from "./notifier.js";
export * from "./types.js";
