// The protocol between tabs, in simulated browsers (simulation.mjs): no tab loses, repeats or
// reorders an event, whatever happens to any of them or to the server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Server, World } from "./simulation.mjs";
import { tell } from "./story.mjs";

// The first ones, and one that a plausible fault does not survive where those do.
const SEEDS = [...Array(30).keys(), 481];

test("after random stories every tab has had every event, once and in order", async () => {
  for (const seed of SEEDS) {
    const story = await tell(seed);
    assert.deepEqual(story.problems(), [], `node story.mjs ${seed}\n${story.lines.join("\n")}`);
  }
});

test("messages that are lost between tabs lose no event", async () => {
  // No browser loses any; a message that cannot be read (messageerror) would be one.
  for (let seed = 101; seed <= 110; seed++) {
    const story = await tell(seed, { loss: 0.03 });
    assert.deepEqual(story.lost(), [], `node story.mjs ${seed} ${seed} 0.03`);
  }
});

/** A world with tabs of one server, after they have settled. */
async function settled({ seed = 1, tabs = 4, ...options } = {}) {
  const world = new World(seed);
  const server = new Server(world);
  const opened = Array.from({ length: tabs }, () => world.open({ server, ...options }));
  await world.run(6000);
  return { world, server, tabs: opened };
}

const role = (tab) => tab.stream.status.role;
const leaderOf = (tabs) => tabs.find((tab) => !tab.dead && role(tab) === "leader");
const followersOf = (tabs) => tabs.filter((tab) => !tab.dead && role(tab) === "follower");
const data = (tab) => tab.events.filter(([type]) => type === "message").map(([, text]) => text);

/** When somebody leads again, in milliseconds. */
async function takeover(world, tabs) {
  const began = world.now;
  while (!leaderOf(tabs)) await world.run(1);
  return world.now - began;
}

test("tabs have one connection, with events or without", async () => {
  for (const quiet of [true, false]) {
    const { world, server, tabs } = await settled();
    if (!quiet) {
      for (let number = 0; number < 50; number++) {
        server.publish(`e${number}`);
        await world.run(10);
      }
      await world.run(500);
    }
    assert.equal(server.connections.size, 1);
    assert.equal(followersOf(tabs).length, 3);
    assert.equal(await tabs[1].stream.tabs(), 4);
  }
});

test("a released leader's place is taken within 100 ms", async () => {
  for (let seed = 1; seed <= 8; seed++) {
    for (const how of ["close", "bfcache", "freeze", "crash"]) {
      const { world, tabs } = await settled({ seed });
      const leader = leaderOf(tabs);
      if (how === "bfcache" || how === "freeze") leader.hide(how);
      else leader[how]();
      assert.ok((await takeover(world, tabs.filter((tab) => tab !== leader))) < 100);
    }
  }
});

test("a blocked leader is replaced within 3 s", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const { world, tabs } = await settled({ seed });
    const leader = leaderOf(tabs);
    leader.blocked = true;
    const took = await takeover(world, tabs.filter((tab) => tab !== leader));
    assert.ok(took < 3000, `${took} ms`);
    await world.run(2000);
    leader.unblock();
    await world.run(2000);
    assert.equal(role(leader), "follower");
  }
});

test("a frozen page that still runs its message handlers is replaced", async () => {
  // No freeze event: what a worker of a frozen page has.
  const { world, tabs } = await settled({ silence: 10000 });
  const leader = leaderOf(tabs);
  leader.away = true;
  const took = await takeover(world, tabs.filter((tab) => tab !== leader));
  assert.ok(took > 3000 && took < 17000, `${took} ms`);
});

test("if two tabs steal the lock at once, one leads in the end", async () => {
  for (let seed = 1; seed <= 8; seed++) {
    const { world, server, tabs } = await settled({ seed, tabs: 8 });
    leaderOf(tabs).blocked = true;
    for (let number = 0; number < 200; number++) {
      server.publish(`e${number}`);
      await world.run(20);
    }
    for (const tab of tabs) tab.unblock();
    await world.run(3000);
    assert.equal(tabs.filter((tab) => role(tab) === "leader").length, 1);
    for (const tab of tabs) assert.equal(data(tab).length, 200);
  }
});

test("closeAll() closes every tab, close() one", async () => {
  const { world, server, tabs } = await settled();
  leaderOf(tabs).stream.close();
  await world.run(200);
  assert.equal(tabs.filter((tab) => tab.stream.readyState === 1).length, 3);
  followersOf(tabs)[0].stream.closeAll();
  await world.run(200);
  assert.deepEqual(tabs.map((tab) => tab.stream.readyState), [2, 2, 2, 2]);
  assert.equal(server.connections.size, 0);
});

test("a final answer closes every tab, after one request", async () => {
  for (const [code, reason, most] of [[401, "refused", 1], [404, "status", 1], [204, "finished", 4]]) {
    const { world, server, tabs } = await settled();
    let asked = 0;
    server.answer = () => {
      asked += 1;
      return { status: code, headers: new Headers(), body: null };
    };
    for (const connection of [...server.connections]) connection.end();
    await world.run(5000);
    assert.deepEqual(tabs.map((tab) => tab.stream.status.reason), Array(4).fill(reason));
    assert.ok(asked <= most, `asked ${asked} times`);
  }
});

test("one refresh serves all tabs, and the next leader too", async () => {
  let asked = 0;
  const refresh = async () => `https://site.example/events?ticket=${++asked}`;
  const { world, server, tabs } = await settled({ refresh });
  const tickets = [];
  server.answer = (address) => {
    const ticket = new URL(address).searchParams.get("ticket");
    tickets.push(ticket);
    return ticket ? undefined : { status: 401, headers: new Headers(), body: null };
  };
  for (const connection of [...server.connections]) connection.end();
  await world.run(5000);
  assert.deepEqual([asked, tickets], [1, [null, "1"]]);
  leaderOf(tabs).close();
  await world.run(1000);
  assert.deepEqual([asked, tickets], [1, [null, "1", "1"]]);
  assert.equal(server.connections.size, 1);
});

for (const [name, first, second, together] of [
  ["other tickets", { url: "https://site.example/events?ticket=a&x=1" }, { url: "https://site.example/events?x=1&token=b" }, true],
  ["another position", { lastEventId: "" }, { url: "https://site.example/events?last_event_id=nothing" }, true],
  ["other addresses", { url: "https://site.example/events?a" }, { url: "https://site.example/events?b" }, false],
  ["other users", { share: "ada" }, { share: "grace" }, false],
  ["the same user with other headers", { share: "ada", headers: { a: "1" } }, { share: "ada", headers: { a: "2" } }, true],
  ["other headers", { headers: { a: "1" } }, { headers: { a: "2" } }, false],
  ["other credentials", { withCredentials: true }, {}, false],
  ["sharing turned off", { share: false }, { share: false }, false],
  ["POST", { method: "POST" }, { method: "POST" }, false],
  ["POST that names its user", { method: "POST", share: "ada" }, { method: "POST", share: "ada" }, true],
]) {
  test(`streams with ${name} are ${together ? "one" : "two"}`, async () => {
    const world = new World(1);
    const server = new Server(world);
    for (const options of [first, second]) world.open({ server, ...options });
    await world.run(1000);
    assert.equal(server.connections.size, together ? 1 : 2);
  });
}

test("a stream with ids of its own for each connection loses and repeats nothing", async () => {
  // Each connection has ids of its own, as a generator for each viewer makes them.
  const { world, server, tabs } = await settled({ tabs: 3 });
  server.ownIds = true;
  for (const connection of [...server.connections]) connection.end();
  for (const tab of tabs) tab.events.length = 0;
  for (let number = 1; number <= 400; number++) {
    server.publish(`e${number}`);
    await world.run(50);
  }
  await world.run(1000);
  for (const tab of tabs) {
    const numbers = data(tab).map((text) => Number(text.slice(1)));
    assert.ok(numbers.length > 300);
    assert.deepEqual(numbers, [...new Set(numbers)].sort((a, b) => a - b));
  }
});

test("delays are random, grow, and stop growing", async () => {
  const waits = [];
  for (let seed = 1; seed <= 40; seed++) {
    const world = new World(seed);
    const server = new Server(world);
    server.up = false;
    const tab = world.open({ server, share: false, delay: 100, maxDelay: 2000 });
    await world.run(20000);
    const tries = tab.conditions.filter(({ state }) => state === "waiting");
    assert.ok(tries.length >= 10);
    waits.push(tries.map(({ retryAt }, index) => retryAt - tab.waitedAt[index]));
  }
  for (let number = 0; number < 10; number++) {
    const bound = Math.min(2000, 100 * 2 ** number);
    const row = waits.map((tries) => tries[number]);
    assert.ok(Math.max(...row) <= bound + 1, `${Math.max(...row)} of ${bound}`);
    assert.ok(Math.min(...row) < bound / 3 && Math.max(...row) > bound / 2, `try ${number}: no jitter`);
  }
});

test("coming online ends a wait, but not one that the server asked for", async () => {
  for (const [answer, waits] of [[undefined, false], [{ "Retry-After": "60" }, true]]) {
    const world = new World(3);
    const server = new Server(world);
    const tab = world.open({ server, share: false, delay: 60000, maxDelay: 60000 });
    await world.run(1000);
    if (answer) server.answer = () => ({ status: 503, headers: new Headers(answer), body: null });
    for (const connection of [...server.connections]) connection.end(new TypeError("cut"));
    server.up = Boolean(answer);
    await world.run(100);
    if (answer) tab.window.dispatchEvent(new Event("online"));
    await world.run(1000);
    server.up = true;
    server.answer = undefined;
    tab.window.dispatchEvent(new Event("online"));
    await world.run(1000);
    assert.equal(tab.stream.readyState, waits ? 0 : 1);
  }
});

test("a hidden page closes its connection only if the option says so", async () => {
  for (const [whenHidden, connections] of [["close", 0], ["keep", 1]]) {
    const { world, server, tabs: [tab] } = await settled({ tabs: 1, whenHidden });
    tab.document.hidden = true;
    tab.document.dispatchEvent(new Event("visibilitychange"));
    await world.run(100);
    assert.equal(server.connections.size, connections);
    assert.equal(tab.stream.status.state, connections ? "open" : "paused");
    server.publish("meanwhile");
    await world.run(100);
    tab.document.hidden = false;
    tab.document.dispatchEvent(new Event("visibilitychange"));
    await world.run(1000);
    assert.deepEqual(data(tab), ["meanwhile"]);
  }
});

test("without locks, or where they are refused, each tab has its own connection", async () => {
  for (const hurt of [
    (context) => (context.navigator = {}),
    (context) => (context.isSecureContext = false),
    (context) => (context.navigator.locks.request = async () => {
      throw new DOMException("an opaque origin", "SecurityError");
    }),
    (context) => (context.BroadcastChannel = class {
      constructor() {
        throw new DOMException("an opaque origin", "SecurityError");
      }
    }),
  ]) {
    const { world, server, tabs } = await settled({ tabs: 3, hurt });
    server.publish("e1");
    await world.run(1000);
    assert.equal(server.connections.size, 3);
    assert.deepEqual(tabs.map(role), ["alone", "alone", "alone"]);
    for (const tab of tabs) assert.deepEqual(data(tab), ["e1"]);
  }
});

test("a page that comes back catches up from the other tabs, without a request", async () => {
  const { world, server, tabs } = await settled();
  server.publish("before");
  await world.run(1000);
  const [back] = followersOf(tabs);
  back.hide("bfcache");
  for (let number = 0; number < 20; number++) server.publish(`e${number}`);
  await world.run(1000);
  const made = server.count;
  back.show("bfcache");
  await world.run(1000);
  assert.equal(data(back).length, 21);
  assert.equal(server.count, made);
});

test("a handler may close its stream at any time, and nothing happens after that", async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const { world, server, tabs } = await settled({ seed });
    const closing = world.pick(tabs);
    let left = Math.floor(world.between(1, 4));
    const close = () => --left === 0 && closing.stream.close();
    for (const type of ["statuschange", "message", "error", "open"]) closing.stream.on(type, close);
    leaderOf(tabs).blocked = true;
    server.publish("e1");
    await world.run(4000);
    for (const tab of tabs) tab.unblock();
    for (const connection of [...server.connections]) connection.end();
    await world.run(3000);
    closing.stream.close();
    const events = closing.events.length;
    server.publish("e2");
    await world.run(20000);
    assert.equal(closing.events.length, events);
    assert.equal(closing.stream.readyState, 2);
    assert.equal(server.connections.size, 1);
    assert.ok([...server.connections].every(({ tab }) => tab !== closing));
  }
});

test("a key function that throws is reported and costs no event in any tab", async () => {
  const reported = [];
  const hurt = (context) => (context.queueMicrotask = (action) => {
    assert.throws(action, /no key/);
    reported.push(context);
  });
  const key = ({ data }) => {
    if (data === "e2") throw new Error("no key");
    return "key";
  };
  const { world, server, tabs } = await settled({ hurt, key });
  const made = server.count;
  for (const name of ["e1", "e2", "e3"]) server.publish(name);
  await world.run(1000);
  for (const tab of tabs) {
    assert.deepEqual(data(tab), ["e1", "e2", "e3"]);
    assert.equal(tab.stream.values.get("key"), "e3");
  }
  assert.equal(new Set(reported).size, tabs.length);
  assert.equal(server.count, made, "no connection was broken by it");
});

test("a tab that catches up slowly keeps its connection until it has everything", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const world = new World(seed);
    const server = new Server(world);
    const first = server.publish("e0");
    for (let number = 1; number <= 10; number++) server.publish(`e${number}`);
    world.open({ server });
    await world.run(1000);
    server.slow = 3000;
    const late = world.open({ server, lastEventId: first });
    await world.run(8000);
    assert.equal(data(late).length, 10, `seed ${seed}`);
  }
});

test("reconnect() replaces the connection, whichever tab calls it", async () => {
  const { world, server, tabs } = await settled();
  for (const tab of [leaderOf(tabs), followersOf(tabs)[0]]) {
    const made = server.count;
    tab.stream.reconnect();
    await world.run(1000);
    assert.equal(server.count, made + 1);
    assert.equal(server.connections.size, 1);
  }
});

test("a live stream without ids is shared at once", async () => {
  const world = new World(5);
  const server = new Server(world);
  server.anonymous = true;
  const open = () => world.open({ server, live: true });
  const tabs = [open()];
  let number = 0;
  const publish = async (count) => {
    for (let turn = 0; turn < count; turn++) {
      server.publish(`e${++number}`);
      await world.run(20);
    }
    await world.run(100);
  };
  await world.run(500);
  await publish(5);
  tabs.push(open(), open());
  await world.run(500);
  assert.equal(server.count, 1);
  await publish(5);
  assert.deepEqual(tabs.map((tab) => data(tab).length), [10, 5, 5]);
  tabs[0].close();
  await world.run(500);
  await publish(5);
  assert.deepEqual(tabs.map((tab) => data(tab).length), [10, 10, 10]);
  assert.equal(server.connections.size, 1);
});

test("lost history is reported once in each tab, and all go on sharing", async () => {
  const { world, server, tabs } = await settled();
  server.set("a", 1);
  await world.run(500);
  server.stop();
  for (let number = 0; number < 5; number++) server.publish(`lost ${number}`);
  server.first = server.log.length;
  server.start();
  await world.run(8000);
  server.publish("after");
  await world.run(1000);
  for (const tab of tabs) {
    assert.deepEqual(
      tab.events.slice(-4).map(([type, text]) => `${type} ${text}`),
      ['stream-reset {"reason":"history-lost"}', "value a=1", "stream-open {}", "message after"],
    );
    assert.equal(tab.events.filter(([type]) => type === "stream-reset").length, 1);
  }
  assert.equal(server.connections.size, 1);
});
