// ?options={...}&url=... : follows the stream, and keeps what came for the test to read. The events
// "price" are those of keys, and "typing" pass.

import { Stream } from "./below/a/prefix/ssekit.js";

const query = new URLSearchParams(location.search);
const url = query.get("url") ?? "events";

window.Stream = Stream;
window.seen = []; // the numbers of events
window.marks = []; // hub events
window.passed = []; // the data of passing events
window.statuses = []; // [time, state, reason, role]
window.shown = []; // pageshow: whether it came from bfcache
window.violations = []; // of the page's policy
addEventListener("securitypolicyviolation", ({ violatedDirective }) => violations.push(violatedDirective));
window.policy = async () => (await fetch(location)).headers.get("Content-Security-Policy");
addEventListener("pageshow", ({ persisted }) => shown.push(persisted));

window.begin = (options) => {
  window.stream = new Stream(url, options);
  stream.addEventListener("message", ({ data }) => seen.push(Number(data)));
  stream.addEventListener("typing", ({ data }) => passed.push(data));
  for (const type of ["stream-open", "stream-reset", "stream-end"]) {
    stream.addEventListener(type, () => marks.push(type));
  }
  const note = () => {
    const { state, reason, role } = stream.status;
    statuses.push([Date.now(), state, reason, role]);
  };
  stream.on("statuschange", note);
  note();
};
const key = ({ type, data }) => (type === "price" ? JSON.parse(data).key : null);
begin({ silence: 3000, json: true, key, ...JSON.parse(query.get("options") ?? "{}") });
