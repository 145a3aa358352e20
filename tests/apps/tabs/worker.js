// ?kind=... : a page whose worker, of this kind, follows the same stream.

const kind = new URLSearchParams(location.search).get("kind");
const worker = new globalThis[kind]("inside.js", { type: "module" });
(worker.port ?? worker).onmessage = ({ data }) => (window.said = data);
