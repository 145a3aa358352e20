// Stream in node, with real servers: its EventSource interface, what reopens it and what ends it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Stream } from "../../ssekit/browser/ssekit.js";
import { STREAM, serve, status, stream, until } from "./serving.mjs";

const QUICK = { delay: 4 };

/** Opens a stream that is closed with its server, and collects what it fires. */
function follow({ url, streams }, options = {}, types = ["message"]) {
  const source = new Stream(url, { ...QUICK, ...options });
  streams.push(source);
  const seen = [];
  for (const type of types) {
    source.addEventListener(type, ({ type, data, lastEventId }) => seen.push([type, data, lastEventId]));
  }
  source.errors = [];
  source.addEventListener("error", ({ response }) => source.errors.push([source.status.reason, response?.status]));
  return Object.assign(source, { seen });
}

test("it has the interface of an EventSource", async () => {
  await serve([stream("id: 1\ndata: a\n\nevent: add\ndata: b\n\n")], async (server) => {
    const source = follow(server, {}, ["message", "add"]);
    const order = [];
    source.onopen = (event) => order.push([event.type, source.readyState]);
    source.onmessage = (event) => order.push([event.type, event.data, event.lastEventId, event.origin]);
    assert.ok(source instanceof EventTarget);
    assert.equal(source.readyState, 0);
    assert.equal(source.url, server.url);
    assert.equal(source.withCredentials, false);
    assert.deepEqual([Stream.CONNECTING, Stream.OPEN, Stream.CLOSED], [0, 1, 2]);
    assert.deepEqual([source.CONNECTING, source.OPEN, source.CLOSED], [0, 1, 2]);
    await until(() => source.seen.length === 2);
    assert.deepEqual(source.seen, [["message", "a", "1"], ["add", "b", "1"]]);
    assert.deepEqual(order, [["open", 1], ["message", "a", "1", new URL(server.url).origin]]);
    assert.equal(source.lastEventId, "1");
    source.close();
    assert.equal(source.readyState, 2);
    assert.deepEqual(source.errors, []);
  });
});

test("an invalid URL or last event id is refused", () => {
  for (const url of ["http://[", "/relative-in-node", "http://127.0.0.1/?last_event_id=a%0Ab"]) {
    assert.throws(() => new Stream(url), { name: "SyntaxError" });
  }
  assert.throws(() => new Stream("http://127.0.0.1/", { lastEventId: "a\0" }), { name: "SyntaxError" });
});

test("a request that cannot be made is refused instead of tried again and again", () => {
  const url = "http://127.0.0.1/";
  for (const options of [{ body: "x" }, { method: "TRACE" }, { headers: { "a b": "c" } }]) {
    assert.throws(() => new Stream(url, options), TypeError);
  }
  assert.throws(() => new Stream("http://user:password@127.0.0.1/"), TypeError);
});

test("the first request has no id, the next the last one as UTF-8", async () => {
  await serve([stream("id: 4\u20ac\ndata: a\n\nid: 5\ndata: cut off\n", "cut"), stream("")], async (server) => {
    const source = follow(server);
    await until(() => server.requests.length === 2);
    const [first, second] = server.requests.map(({ headers }) => headers);
    assert.equal(first["last-event-id"], undefined);
    assert.equal(first.accept, "text/event-stream");
    assert.equal(Buffer.from(second["last-event-id"], "latin1").toString(), "4\u20ac");
    assert.deepEqual(source.seen, [["message", "a", "4\u20ac"]]);
  });
});

test("the position of a page comes from the option or the address, and moves on", async () => {
  await serve([stream("data: a\nid: 8\n\n", "end"), stream("")], async (server) => {
    follow({ ...server, url: `${server.url}?channel=a&last_event_id=7` });
    await until(() => server.requests.length === 2);
    assert.deepEqual(server.requests.map(({ url }) => url), ["/?channel=a", "/?channel=a"]);
    assert.deepEqual(server.requests.map(({ headers }) => headers["last-event-id"]), ["7", "8"]);
  });
  await serve([stream("")], async (server) => {
    follow(server, { lastEventId: "9" });
    await until(() => server.requests.length);
    assert.equal(server.requests[0].headers["last-event-id"], "9");
  });
});

test("an id may be longer than a function can have arguments", async () => {
  const sent = [];
  await serve([stream(`id: ${"x".repeat(200_000)}\ndata: a\n\n`, "end")], async (server) => {
    const ask = (url, { headers }) => {
      sent.push(headers.get("Last-Event-ID")?.length);
      headers.delete("Last-Event-ID"); // a server of node refuses it
      return fetch(url, { headers });
    };
    follow(server, { fetch: ask });
    await until(() => sent.length === 2);
    assert.deepEqual(sent, [undefined, 200_000]);
  });
});

test("headers, method and body go with every request", async () => {
  await serve([stream("data: a\n\n", "end"), stream("")], async (server) => {
    follow(server, { method: "POST", headers: { Authorization: "Bearer x" }, body: "question" });
    await until(() => server.requests.length === 2 && server.requests[1].text);
    for (const { method, headers, text } of server.requests) {
      assert.deepEqual([method, headers.authorization, text], ["POST", "Bearer x", "question"]);
    }
  });
});

test("each event arrives once, wherever a connection is cut", async () => {
  const events = [1, 2, 3].map((number) => `event: e\ndata: ${number}\ndata: …\nid: ${number}\n\n`);
  const whole = Buffer.from(events.join(""));
  for (let cut = 0; cut < whole.length; cut += 4) {
    const rest = (request, response) => {
      const last = Number(request.headers["last-event-id"] ?? 0);
      stream(events.slice(last).join(""))(request, response);
    };
    await serve([stream(whole.subarray(0, cut), "cut"), rest], async (server) => {
      const source = follow(server, {}, ["e"]);
      await until(() => source.seen.length >= 3);
      assert.deepEqual(source.seen.map(([, data]) => data), ["1\n…", "2\n…", "3\n…"], `cut at ${cut}`);
    });
  }
});

for (const [name, answer, reason, code] of [
  ["an orderly end", stream("data: a\n\n", "end"), "ended", 200],
  ["a cut", stream("data: a\n\n", "cut"), "network", 0],
  ["a connection without an answer", (request) => request.socket.destroy(), "network", 0],
  ["a 500", status(500), "status", 500],
  ["a 502 with a page", status(502, { "Content-Type": "text/html" }, "<h1>Bad Gateway"), "status", 502],
  ["a 503", status(503), "status", 503],
  ["a 429", status(429), "status", 429],
]) {
  test(`it reopens after ${name}`, async () => {
    await serve([answer, stream("data: b\n\n")], async (server) => {
      const source = follow(server);
      const waits = [];
      source.on("statuschange", () => source.status.state === "waiting" && waits.push(source.status));
      await until(() => source.seen.some(([, data]) => data === "b"));
      assert.equal(waits.length, 1);
      const [{ retryAt, ...wait }] = waits;
      assert.deepEqual(wait, { state: "waiting", reason, code, role: "alone" });
      assert.ok(Math.abs(retryAt - Date.now()) < 1000);
      assert.deepEqual(source.errors, [[reason, undefined]]);
      assert.equal(source.readyState, 1);
    });
  });
}

for (const [name, answer, reason, code] of [
  ["404", status(404, {}, "nothing here"), "status", 404],
  ["410", status(410, {}, "gone"), "status", 410],
  ["401 without a refresh", status(401, {}, "who are you?"), "refused", 401],
  ["a wrong type", status(200, { "Content-Type": "text/html" }, "<p>"), "type", 200],
  ["no type", (request, response) => response.writeHead(200).end("data: a\n\n"), "type", 200],
  ["a longer type", status(200, { "Content-Type": "text/event-streams" }), "type", 200],
]) {
  test(`${name} ends it, and the handler gets the answer`, async () => {
    await serve([answer], async (server) => {
      const source = follow(server);
      let body;
      source.onerror = ({ response }) => (body = response.text());
      await until(() => source.readyState === 2);
      assert.deepEqual(source.errors, [[reason, code]]);
      assert.equal(source.status.reason, reason);
      await body;
      await sleep(50);
      assert.equal(server.requests.length, 1);
    });
  });
}

test("204 ends it without an error", async () => {
  await serve([stream("data: a\n\n", "end"), status(204)], async (server) => {
    const source = follow(server);
    await until(() => source.readyState === 2);
    assert.deepEqual(source.status, { state: "closed", reason: "finished", code: 204, retryAt: 0, role: "alone" });
    assert.deepEqual(source.errors, [["ended", undefined]]);
    await sleep(50);
    assert.equal(server.requests.length, 2);
  });
});

for (const type of ["text/event-stream;charset=utf-8", "TEXT/Event-Stream ; x", "text/event-stream;"]) {
  test(`${type} is the right type`, async () => {
    await serve([stream("data: a\n\n", "hold", { "Content-Type": type })], async (server) => {
      const source = follow(server);
      await until(() => source.seen.length);
    });
  });
}

test("it waits for Retry-After and retry:, and then for its jitter", async () => {
  const twice = [status(503, { "Retry-After": "0.3" }), stream("retry: 200\n", "end"), stream("data: a\n\n")];
  await serve(twice, async (server) => {
    const source = follow(server, { delay: 1 });
    await until(() => source.seen.length);
    const [first, second, third] = server.requests.map(({ at }) => at);
    assert.ok(second - first >= 299, `${second - first} ms`);
    assert.ok(third - second >= 199, `${third - second} ms`);
  });
  await serve([status(503, { "Retry-After": new Date(Date.now() + 2500).toUTCString() }), stream("")], async (server) => {
    const source = follow(server);
    await until(() => source.status.state === "waiting");
    const wait = source.status.retryAt - Date.now();
    assert.ok(wait > 1000 && wait < 2600, `${wait} ms`);
  });
});

test("a retry: longer than any timer causes no storm of requests", async () => {
  await serve([stream("retry: 99999999999999999999\ndata: a\n\n", "end")], async (server) => {
    follow(server);
    await sleep(100);
    assert.equal(server.requests.length, 1);
  });
});

for (const code of [401, 403]) {
  test(`${code} asks for a new address once, and may ask again after it was open`, async () => {
    const answers = [status(code), stream("data: a\n\n", "end"), status(code), stream("data: b\n\n")];
    await serve(answers, async (server) => {
      let number = 0;
      const refresh = async (response) => {
        assert.equal(response.status, code);
        return `${server.url}?ticket=${++number}`;
      };
      const source = follow(server, { refresh });
      await until(() => source.seen.length === 2);
      assert.deepEqual(server.requests.map(({ url }) => url), ["/", "/?ticket=1", "/?ticket=1", "/?ticket=2"]);
      assert.equal(source.url, server.url);
    });
  });
}

test("a second refusal in a row is final", async () => {
  await serve([status(401)], async (server) => {
    let asked = 0;
    const refresh = () => ({ headers: { Authorization: `Bearer ${++asked}` } });
    const source = follow(server, { refresh });
    await until(() => source.readyState === 2);
    assert.deepEqual(server.requests.map(({ headers }) => headers.authorization), [undefined, "Bearer 1"]);
    assert.deepEqual(source.errors, [["refused", 401]]);
  });
});

test("a refresh that returns null is final, one that throws is tried again", async () => {
  await serve([status(403)], async (server) => {
    const source = follow(server, { refresh: () => null });
    await until(() => source.readyState === 2);
    assert.equal(server.requests.length, 1);
  });
  await serve([status(401), status(401), stream("data: a\n\n")], async (server) => {
    let asked = 0;
    const refresh = async () => {
      if (++asked === 1) throw new TypeError("the server that issues tickets restarts");
      return { headers: { Authorization: "Bearer x" } };
    };
    const source = follow(server, { refresh });
    await until(() => source.seen.length);
    assert.deepEqual(source.errors, [["refresh", undefined]]);
    assert.equal(server.requests[2].headers.authorization, "Bearer x");
  });
});

test("a silent connection is replaced, one with comments is kept", async () => {
  let bytes = 0;
  const chatty = (request, response) => {
    response.writeHead(200, STREAM);
    const timer = setInterval(() => response.write(":") && bytes++, 30);
    response.on("close", () => clearInterval(timer));
  };
  await serve([stream("data: a\n\n"), (request) => void request, chatty], async (server) => {
    const source = follow(server, { silence: 100 });
    await until(() => server.requests.length === 3, "two silent connections", 9000);
    await until(() => bytes >= 25); // for longer than the silence that is noticed
    assert.equal(server.requests.length, 3);
    assert.deepEqual(source.errors.map(([reason]) => reason), ["silence", "silence"]);
    await until(() => server.open() === 1, "the silent ones to be closed");
  });
});

test("nothing is dispatched after close() in a handler", async () => {
  await serve([stream("data: a\n\ndata: b\n\ndata: c\n\n")], async (server) => {
    const source = follow(server);
    source.addEventListener("message", ({ data }) => data === "b" && source.close());
    await until(() => source.readyState === 2);
    await until(() => server.open() === 0, "the connection to be closed");
    assert.deepEqual(source.seen.map(([, data]) => data), ["a", "b"]);
  });
});

test("no request is made after close() in an error or status handler", async () => {
  for (const type of ["error", "statuschange"]) {
    await serve([status(503)], async (server) => {
      const source = follow(server);
      source.on(type, () => source.close());
      await sleep(100);
      assert.ok(server.requests.length <= 1);
      assert.equal(source.status.reason, "closed");
    });
  }
});

test("an AbortSignal closes it, even one that was aborted before", async () => {
  await serve([stream("data: a\n\n")], async (server) => {
    const abort = new AbortController();
    const source = follow(server, { signal: abort.signal });
    await until(() => source.seen.length);
    abort.abort();
    assert.equal(source.readyState, 2);
    await until(() => server.open() === 0, "the connection to be closed");
    const late = follow(server, { signal: abort.signal });
    assert.equal(late.readyState, 2);
    await sleep(50);
    assert.equal(server.requests.length, 1);
  });
});

test("iterating yields every event, and leaving the loop closes the stream", async () => {
  await serve([stream("data: a\n\nevent: add\ndata: b\n\ndata: c\n\n")], async (server) => {
    const source = follow(server);
    const seen = [];
    for await (const { type, data } of source) {
      seen.push([type, data]);
      if (data === "b") break;
    }
    assert.deepEqual(seen, [["message", "a"], ["add", "b"]]);
    assert.equal(source.readyState, 2);
  });
});

test("iterating ends when the stream ends, and fails when it fails", async () => {
  const read = async (source) => {
    const seen = [];
    for await (const { data } of source) seen.push(data);
    return seen;
  };
  await serve([stream("data: a\n\ndata: b\n\n", "end"), status(204)], async (server) => {
    assert.deepEqual(await read(follow(server)), ["a", "b"]);
  });
  await serve([stream("data: a\n\n", "end"), status(404)], async (server) => {
    await assert.rejects(read(follow(server)), /status 404/);
  });
});

test("a loop that falls too far behind fails instead of losing events", async () => {
  await serve([stream("data: x\n\n".repeat(10_100))], async (server) => {
    const source = follow(server);
    const loop = source[Symbol.asyncIterator]();
    await loop.next();
    await until(() => source.seen.length === 10_100);
    await assert.rejects(loop.next(), /more than 10000 events behind/);
  });
});

test("on() passes data, parsed if the option json says so, until its handler is removed", async () => {
  const text = 'event: price\ndata: {"bid": 1}\n\nevent: stream-end\ndata: {"reason": "finished"}\n\n';
  for (const json of [true, false]) {
    await serve([stream(text)], async (server) => {
      const source = follow(server, { json });
      const seen = [];
      const end = source.on("price", (data, event) => seen.push(data, event.type));
      source.on("stream-end", ({ reason }) => seen.push(reason));
      await until(() => seen.length === 3);
      assert.deepEqual(seen, [json ? { bid: 1 } : '{"bid": 1}', "price", "finished"]);
      end();
      source.dispatchEvent(new MessageEvent("price", { data: "{}" }));
      assert.equal(seen.length, 3);
    });
  }
});

test("stream-reset fires reset, and values follow the opening, updates and removals", async () => {
  const value = (key, bid, id = "") => `event: price\ndata: {"key": "${key}", "bid": ${bid}}\n${id}\n`;
  const first = `${value("EUR", 1)}${value("GBP", 2)}event: stream-open\ndata: {}\nid: 1\n\n` +
    `${value("EUR", 3, "id: 2\n")}event: stream-remove\ndata: {"channel": "fx", "key": "GBP"}\nid: 3\n\n`;
  const second = `event: stream-reset\ndata: {"reason": "history-lost"}\n\n${value("JPY", 4)}` +
    "event: stream-open\ndata: {}\nid: 9\n\n";
  await serve([stream(first, "end"), stream(second)], async (server) => {
    const source = follow(server, { json: true, key: (event) => JSON.parse(event.data).key });
    const maps = [];
    const take = () => maps.push([...source.values].map(([key, { bid }]) => `${key}=${bid}`).join());
    for (const type of ["stream-open", "stream-remove", "reset"]) source.on(type, take);
    await until(() => maps.length === 4);
    assert.deepEqual(maps, ["EUR=1,GBP=2", "EUR=3", "", "JPY=4"]);
    assert.equal(server.requests[1].headers["last-event-id"], "3");
  });
});

test("values of an opening that was cut are dropped", async () => {
  const key = (event) => event.data[0];
  await serve([stream("data: a1\n\ndata: b1\n\n", "cut"), stream("data: a2\n\n")], async (server) => {
    const source = follow(server, { key });
    await until(() => source.values.get("a") === "a2");
    assert.deepEqual([...source.values.keys()], ["a"]);
  });
});

test("an event that never ends closes the stream", async () => {
  const endless = (request, response) => {
    response.writeHead(200, STREAM);
    const more = () => response.write("x".repeat(2 ** 20)) || true;
    const timer = setInterval(more, 1);
    response.on("close", () => clearInterval(timer));
  };
  await serve([endless], async (server) => {
    const source = follow(server);
    await until(() => source.readyState === 2, "the end", 9000);
    assert.equal(source.status.reason, "size");
  });
});

test("a function given as fetch makes the requests, with cookies if they are wanted", async () => {
  await serve([stream("data: a\n\n")], async (server) => {
    for (const [withCredentials, credentials] of [[false, "same-origin"], [true, "include"]]) {
      const asked = [];
      const ask = (url, init) => (asked.push(url, init.credentials), fetch(url, init));
      const source = follow(server, { withCredentials, fetch: ask });
      await until(() => source.seen.length);
      assert.equal(source.withCredentials, withCredentials);
      assert.deepEqual(asked, [server.url, credentials]);
    }
  });
});

test("a closed stream does not keep the process alive", async () => {
  await serve([stream("data: a\n\n")], async (server) => {
    const program = new URL("../apps/one_event.mjs", import.meta.url).pathname;
    const child = spawn(process.execPath, [program, server.url], { stdio: ["ignore", "pipe", "inherit"] });
    const [text] = await once(child.stdout, "data");
    assert.equal(String(text), "a\n");
    const [code] = await once(child, "exit", { signal: AbortSignal.timeout(5000) });
    assert.equal(code, 0);
  });
});
