// better-sse with a timer for each session.

import { createRequire } from "node:module";
import { createServer } from "node:http";

const { createSession } = createRequire(new URL("../peers/package.json", import.meta.url))(
  "better-sse",
);

createServer(async (request, response) => {
  if (new URL(request.url, "http://127.0.0.1").pathname !== "/events") {
    response.end("ok\n");
    return;
  }
  const session = await createSession(request, response);
  let number = 0;
  const timer = setInterval(() => {
    number += 1;
    session.push(`@${number},${process.hrtime.bigint()},`.padEnd(82, "x"));
  }, 50);
  session.once("disconnected", () => clearInterval(timer));
}).listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
