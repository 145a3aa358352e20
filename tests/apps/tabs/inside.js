// A frame of an opaque origin, or a worker: says how its stream is.

import { Stream } from "./below/a/prefix/ssekit.js";

const shared = "onconnect" in globalThis; // it has a port to each of its pages
const to = shared ? [] : [globalThis.parent ?? globalThis];
const stream = new Stream(new URL("events", import.meta.url), { silence: 3000 });
let seen = 0;
const say = () => {
  const { role, state } = stream.status;
  for (const page of to) page.postMessage({ role, state, seen }, { targetOrigin: "*" });
};
globalThis.onconnect = ({ ports }) => {
  to.push(...ports);
  say();
};
stream.onmessage = () => {
  seen += 1;
  say();
};
stream.on("statuschange", say);
