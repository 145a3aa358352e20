// A frame of an opaque origin, or a worker: says how its stream is.

import { Stream } from "./below/a/prefix/ssekit.js";

const to = globalThis.parent ?? globalThis;
const stream = new Stream(new URL("events", import.meta.url), { silence: 3000 });
let seen = 0;
const say = () => {
  const { role, state } = stream.status;
  if (globalThis.parent) to.postMessage({ role, state, seen }, "*");
  else to.postMessage({ role, state, seen });
};
stream.onmessage = () => {
  seen += 1;
  say();
};
stream.on("statuschange", say);
