// A server of node's own that answers each request with the next of its answers; the last repeats.

import { createServer } from "node:http";

export const STREAM = { "Content-Type": "text/event-stream" };

/** Answers 200 with these bytes; `then` is "end", "cut" or "hold". */
export const stream = (text, then = "hold", headers = {}) => (request, response) => {
  response.writeHead(200, { ...STREAM, ...headers });
  response.write(text);
  if (then === "end") response.end();
  if (then === "cut") setTimeout(() => response.destroy(), 5);
};

export const status = (code, headers = {}, body = "") => (request, response) => {
  response.writeHead(code, headers).end(body);
};

/**
 * Runs `use` with the server: `url`, `requests` (with their bodies), and how many answers are
 * `open()`. Node's fetch may keep a connection without a request for a while.
 */
export async function serve(answers, use) {
  const requests = [];
  let open = 0;
  const server = createServer(async (request, response) => {
    const number = requests.length;
    requests.push(request);
    open += 1;
    response.on("close", () => (open -= 1));
    request.at = performance.now();
    request.text = "";
    for await (const part of request) request.text += part;
    answers[Math.min(number, answers.length - 1)](request, response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const streams = [];
  try {
    await use({
      url: `http://127.0.0.1:${server.address().port}/`,
      requests,
      server,
      streams,
      open: () => open,
    });
  } finally {
    for (const one of streams) one.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Waits until the condition holds. */
export async function until(condition, what = String(condition), milliseconds = 5000) {
  const end = performance.now() + milliseconds;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) throw new Error(`waited ${milliseconds} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
