// A page whose worker follows the same stream.

const worker = new Worker("inside.js", { type: "module" });
worker.onmessage = ({ data }) => (window.said = data);
