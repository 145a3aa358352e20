// ssekit.js as a test service of LaunchDarkly's SSE contract tests: node contract_service.mjs [PORT].
// CONTRIBUTING.md says how to build and run their harness.

import { createServer } from "node:http";
import { setImmediate } from "node:timers/promises";
import { Stream } from "../../ssekit/browser/ssekit.js";

const CAPABILITIES = [
  "bom", "comments", "event-type-listeners", "headers", "last-event-id", "post", "read-timeout",
  "report", "restart", "server-directed-shutdown-request",
];
const LF = 0x0a;
const CR = 0x0d;
const COLON = 0x3a;

/** One stream that the harness has asked for, and what it is told about it. */
class Client {
  #callbacks;
  #count = 0;
  #sent = Promise.resolve();

  constructor({ streamUrl, callbackUrl, initialDelayMs, readTimeoutMs, lastEventId, headers, method, body }) {
    this.#callbacks = callbackUrl;
    this.stream = new Stream(streamUrl, {
      delay: initialDelayMs,
      silence: readTimeoutMs,
      lastEventId,
      headers,
      method,
      body,
      fetch: (...request) => this.#fetch(...request),
    });
    this.listen("message");
    this.stream.addEventListener("error", () => {
      const { reason, code } = this.stream.status;
      this.#tell({ kind: "error", error: `${reason} ${code}` });
    });
  }

  listen(type) {
    this.stream.addEventListener(type, ({ data, lastEventId }) => {
      this.#tell({ kind: "event", event: { type, data, id: lastEventId } });
    });
  }

  /** Callbacks are numbered as they happen, and sent one after another. */
  #tell(message) {
    const url = `${this.#callbacks}/${++this.#count}`;
    const post = () => fetch(url, { method: "POST", body: JSON.stringify(message) });
    this.#sent = this.#sent.then(post).catch(() => {}); // the harness has finished with it
  }

  /** A fetch whose answer's comments are told as they pass, between the events around them. */
  async #fetch(...request) {
    const answer = await fetch(...request);
    if (answer.status !== 200) return answer;
    let comment; // the bytes so far of a line that is a comment
    let inLine = false;
    let head = [0xef, 0xbb, 0xbf]; // a byte order mark
    const comments = new TransformStream({
      transform: async (chunk, controller) => {
        let start = 0;
        for (let at = 0; at < chunk.length; at++) {
          const byte = chunk[at];
          if (head.length && byte === head[0] && !inLine) {
            head.shift();
          } else if (byte === CR || byte === LF) {
            if (comment) {
              // Let what came before it be dispatched first.
              controller.enqueue(chunk.subarray(start, at));
              start = at;
              for (let turn = 0; turn < 3; turn++) await setImmediate();
              this.#tell({ kind: "comment", comment: Buffer.from(comment).toString() });
            }
            comment = undefined;
            inLine = false;
            head = [];
          } else if (inLine) {
            comment?.push(byte);
          } else {
            inLine = true;
            head = [];
            if (byte === COLON) comment = [];
          }
        }
        controller.enqueue(chunk.subarray(start));
      },
    });
    const { status, headers } = answer;
    return new Response(answer.body.pipeThrough(comments), { status, headers });
  }
}

const clients = new Map();
let created = 0;

/** What each request of the harness does: the status, and a header where one is due. */
function act(method, path, read) {
  if (path === "/") {
    if (method === "GET") return [200, {}, JSON.stringify({ capabilities: CAPABILITIES })];
    if (method === "DELETE") {
      setTimeout(() => process.exit(0), 10);
      return [204];
    }
    const location = `/streams/${++created}`;
    clients.set(location, new Client(read()));
    return [201, { Location: location }];
  }
  const client = clients.get(path);
  if (!client) return [404];
  if (method === "DELETE") {
    client.stream.close();
    clients.delete(path);
    return [204];
  }
  const { command, listen } = read();
  if (command === "listen") client.listen(listen.type);
  else if (command === "restart") client.stream.reconnect();
  else return [400];
  return [204];
}

const server = createServer(async (request, response) => {
  let text = "";
  for await (const part of request) text += part;
  const [status, headers, body] = act(request.method, request.url, () => JSON.parse(text));
  response.writeHead(status, headers).end(body);
});
server.listen(Number(process.argv[2] ?? 8000), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
