// ?options={...}&url=... : follows the stream, and keeps what came for the test to read.

import { Stream } from "./below/a/prefix/ssekit.js";

const query = new URLSearchParams(location.search);
const url = query.get("url") ?? "events";

window.Stream = Stream;
window.seen = []; // the numbers of events
window.marks = []; // hub events
window.statuses = []; // [time, state, reason, role]
window.shown = []; // pageshow: whether it came from bfcache
addEventListener("pageshow", ({ persisted }) => shown.push(persisted));

window.begin = (options) => {
  window.stream = new Stream(url, options);
  stream.addEventListener("message", ({ data }) => seen.push(Number(data)));
  for (const type of ["stream-open", "stream-reset"]) {
    stream.addEventListener(type, () => marks.push(type));
  }
  const note = () => {
    const { state, reason, role } = stream.status;
    statuses.push([Date.now(), state, reason, role]);
  };
  stream.on("statuschange", note);
  note();
};
begin({ silence: 3000, ...JSON.parse(query.get("options") ?? "{}") });
