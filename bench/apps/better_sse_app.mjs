// better-sse as its documentation has it: a session for each client, registered with a channel.

import { createRequire } from "node:module";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const { createChannel, createSession } = createRequire(
  new URL("../peers/package.json", import.meta.url),
)("better-sse");
const channel = createChannel();

function data(sequence, size) {
  return `@${sequence},${process.hrtime.bigint()},`.padEnd(size, "x");
}

async function publish(query) {
  const number = (name, otherwise) => Number(query.get(name) ?? otherwise);
  const [count, rate, burst] = [number("count", 1), number("rate", 0), number("burst", 1)];
  const began = performance.now();
  for (let first = 1; first <= count; first += burst) {
    const wait = rate ? began + ((first - 1) * 1000) / rate - performance.now() : 0;
    await (wait > 0 ? sleep(wait) : new Promise(setImmediate));
    for (let sequence = first; sequence < first + burst && sequence <= count; sequence++) {
      channel.broadcast(data(sequence, number("size", 80)), "message", {
        eventId: `1750000000000-${sequence}`,
      });
    }
  }
}

createServer(async (request, response) => {
  const url = new URL(request.url, "http://127.0.0.1");
  if (url.pathname === "/events") {
    channel.register(await createSession(request, response));
    return;
  }
  if (url.pathname === "/publish") await publish(url.searchParams);
  response.end("ok\n");
}).listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
