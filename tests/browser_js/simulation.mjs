// A browser with many tabs, and a server, in one process and on one clock.
//
// Each tab runs the real ssekit.js with globals of its own: timers, locks, channels, fetch and page
// events, all driven by a seeded random number generator, so that a failure is repeated by its
// seed. The browser behaves as real ones were seen to: tasks of a blocked page come
// later and in any order of their sources, a crash releases locks without a word, a stolen holder
// learns of it when it runs again, bytes are cut anywhere.

import { readFileSync } from "node:fs";
import vm from "node:vm";

const MODULE = new URL("../../ssekit/browser/ssekit.js", import.meta.url);
const SCRIPT = new vm.Script(
  `${readFileSync(MODULE, "utf8").replaceAll(/^export /gm, "")};({ Stream, Decoder })`,
  { filename: "ssekit.js" },
);
const OUTSIDE = {
  AbortController, DOMException, Event, EventTarget, Headers, MessageEvent, Request, Response,
  TextDecoder, TextEncoder, URL, console, queueMicrotask,
};

/** Mulberry32. */
export const generator = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};

export class World {
  now = 1_700_000_000_000;
  #events = [];
  #order = 0;
  tabs = [];
  locks = new Map();
  channels = new Set();
  errors = [];
  loss = 0; // of a channel's messages; in a browser there is none

  constructor(seed) {
    this.random = generator(seed);
  }

  between(low, high) {
    return low + this.random() * (high - low);
  }

  pick(list) {
    return list[Math.floor(this.random() * list.length)];
  }

  /** Runs a task of nobody's, or of a tab's source, `delay` ms from now. */
  at(delay, action, tab, source) {
    const event = { time: this.now + delay, order: this.#order++, action, tab, source };
    // Sorted insertion from the end: most are soon.
    let index = this.#events.length;
    const after = (other) => other.time > event.time;
    while (index > 0 && after(this.#events[index - 1])) index--;
    this.#events.splice(index, 0, event);
    return event;
  }

  /** Runs everything that is due within so many ms. */
  async run(milliseconds) {
    const end = this.now + milliseconds;
    while (this.#events.length && this.#events[0].time <= end) {
      const { time, action, tab, source } = this.#events.shift();
      this.now = Math.max(this.now, time);
      if (!tab) action();
      else if (!tab.take(source, action)) continue;
      await microtasks();
    }
    this.now = end;
  }

  open(options = {}) {
    const tab = new Tab(this, options);
    this.tabs.push(tab);
    return tab;
  }

  get alive() {
    return this.tabs.filter((tab) => !tab.dead && !tab.away);
  }
}

const microtasks = () => new Promise((resolve) => setImmediate(resolve));

class Lock {
  holder = null;
  queue = [];
}

class Tab {
  dead = false;
  away = false; // in bfcache or frozen
  blocked = false;
  events = [];
  conditions = [];
  waitedAt = [];
  #pending = new Map(); // source: tasks
  requests = new Set();
  #channels = new Set();

  constructor(world, { server, url = "https://site.example/events", hurt, ...options }) {
    this.world = world;
    this.server = server;
    this.document = Object.assign(new EventTarget(), { baseURI: "https://site.example/", hidden: false });
    this.window = new EventTarget();
    const context = vm.createContext({ ...OUTSIDE, ...this.#globals() });
    context.window = this.window;
    context.self = this.window;
    hurt?.(context);
    this.module = SCRIPT.runInContext(context);
    this.start(url, options);
  }

  start(url, options) {
    this.stream = new this.module.Stream(url, options);
    this.stream.addEventListener("statuschange", () => {
      this.conditions.push(this.stream.status);
      if (this.stream.status.state === "waiting") this.waitedAt.push(this.world.now);
    });
    const taken = (event) => this.events.push([event.type, event.data, event.lastEventId]);
    for (const type of ["message", "stream-open", "stream-reset", "value", "passing"]) {
      this.stream.addEventListener(type, taken);
    }
  }

  /** Runs a task of this tab, or keeps it until the page runs again. */
  take(source, action) {
    if (this.dead) return false;
    const waiting = this.#pending.get(source) ?? [];
    this.#pending.set(source, waiting);
    const standing = this.blocked || (this.away && source !== "channel");
    if (standing || (waiting.length)) {
      waiting.push(action);
      return false;
    }
    action();
    return true;
  }

  /** Ends a block: what waited runs, each source in its order, and the sources in any. */
  unblock() {
    this.blocked = false;
    this.#flush();
  }

  #flush() {
    if (this.dead || this.blocked || this.away) return;
    const sources = [...this.#pending.values()].filter((tasks) => tasks.length);
    if (!sources.length) return;
    this.world.at(0.001, () => {
      if (!this.dead && !this.blocked && !this.away) this.world.pick(sources).shift()();
      this.#flush();
    });
  }

  close() {
    this.window.dispatchEvent(new Event("pagehide"));
    this.crash();
  }

  crash() {
    this.dead = true;
    for (const request of this.requests) request.gone();
    for (const channel of this.#channels) this.world.channels.delete(channel);
    for (const lock of this.world.locks.values()) {
      lock.queue = lock.queue.filter((one) => one.tab !== this);
      if (lock.holder?.tab === this) {
        this.world.at(this.world.between(4, 18), () => this.world.free(lock, this));
      }
    }
  }

  hide(kind) {
    (kind === "freeze" ? this.document : this.window).dispatchEvent(
      new Event(kind === "freeze" ? "freeze" : "pagehide"),
    );
    this.away = true;
  }

  show(kind) {
    this.away = false;
    this.#flush();
    (kind === "freeze" ? this.document : this.window).dispatchEvent(
      new Event(kind === "freeze" ? "resume" : "pageshow"),
    );
  }

  #globals() {
    const { world } = this;
    const tab = this;
    const date = { now: () => Math.floor(world.now), parse: Date.parse };
    const math = Object.create(Math);
    math.random = world.random;
    return {
      Date: date,
      Math: math,
      isSecureContext: true,
      document: this.document,
      setTimeout: (action, delay = 0) => {
        const timer = { over: false };
        world.at(Math.max(delay, 0), () => !timer.over && action(), tab, "timer");
        return timer;
      },
      clearTimeout: (timer) => timer && (timer.over = true),
      navigator: { locks: { request: (...args) => tab.#request(...args), query: () => tab.#query() } },
      BroadcastChannel: class {
        constructor(name) {
          this.name = name;
          this.last = 0;
          tab.#channels.add(this);
          world.channels.add(this);
        }

        postMessage(message) {
          if (!world.channels.has(this)) throw new Error("the channel is closed");
          const copy = JSON.stringify(message, (_, value) => (value === Infinity ? "∞" : value));
          for (const other of world.channels) {
            if (other === this || other.name !== this.name) continue;
            if (world.loss && world.random() < world.loss) continue;
            const data = JSON.parse(copy, (_, value) => (value === "∞" ? Infinity : value));
            // In order for each receiver.
            other.last = Math.max(other.last, world.now + world.between(0, 3));
            const deliver = () => world.channels.has(other) && other.onmessage?.({ data });
            world.at(other.last - world.now, deliver, other.tab, "channel");
          }
        }

        get tab() {
          return tab;
        }

        close() {
          world.channels.delete(this);
          tab.#channels.delete(this);
        }
      },
      fetch: (address, init) => tab.server.fetch(tab, address, init),
    };
  }

  #request(name, { signal, steal }, action) {
    const { world } = this;
    if (!world.locks.has(name)) world.locks.set(name, new Lock());
    const lock = world.locks.get(name);
    return new Promise((resolve, reject) => {
      const request = { tab: this, action, resolve, reject };
      if (signal?.aborted) return reject(new DOMException("aborted", "AbortError"));
      signal?.addEventListener("abort", () => {
        if (!lock.queue.includes(request)) return;
        lock.queue.splice(lock.queue.indexOf(request), 1);
        reject(new DOMException("aborted", "AbortError"));
      });
      if (steal) {
        const { holder } = lock;
        lock.holder = null;
        if (holder) {
          const stolen = () => holder.reject(new DOMException("stolen", "AbortError"));
          world.at(world.between(0, 5), stolen, holder.tab, "lock");
        }
        lock.queue.unshift(request);
      } else lock.queue.push(request);
      world.grant(lock);
    });
  }

  async #query() {
    const held = [];
    const pending = [];
    for (const [name, lock] of this.world.locks) {
      if (lock.holder) held.push({ name });
      pending.push(...lock.queue.map(() => ({ name })));
    }
    return { held, pending };
  }
}

Object.assign(World.prototype, {
  grant(lock) {
    if (lock.holder || !lock.queue.length) return;
    const request = lock.queue.shift();
    lock.holder = request;
    const run = () => {
      if (lock.holder !== request) return;
      Promise.resolve(request.action({})).then((value) => {
        this.free(lock, request.tab, request);
        request.resolve(value);
      });
    };
    this.at(this.between(0, 5), run, request.tab, "lock");
  },
  free(lock, tab, request) {
    if (lock.holder?.tab !== tab || (request && lock.holder !== request)) return;
    lock.holder = null;
    this.grant(lock);
  },
});

/**
 * A server with a hub's manners: an opening with the values of keys and a `stream-open` whose id
 * may be another channel's, resuming after an id. Its ids are in no order.
 */
export class Server {
  log = []; // { id, visible, block }
  values = new Map();
  connections = new Set();
  most = 0;
  count = 0;
  up = true;
  first = 0; // what is before has been forgotten

  constructor(world) {
    this.world = world;
    this.#append(false, "");
  }

  #append(visible, block) {
    const id = `${Math.floor(this.world.random() * 1e9).toString(36)}.${this.log.length}`;
    this.log.push({ id, visible, block: `${block}id: ${id}\n\n` });
    if (visible) this.#send(this.log.at(-1).block);
    return id;
  }

  publish(data) {
    if (this.anonymous) {
      this.#send(`data: ${data}\n\n`);
      return "";
    }
    if (this.ownIds) {
      for (const connection of this.connections) {
        connection.number = (connection.number ?? 0) + 1;
        connection.send(`data: ${data}\nid: ${connection.name}.${connection.number}\n\n`);
      }
      return "";
    }
    return this.#append(true, `data: ${data}\n`);
  }

  /** Another channel's event. */
  elsewhere() {
    this.#append(false, "");
  }

  set(key, version) {
    this.values.set(key, version);
    this.#append(true, `event: value\ndata: ${key}=${version}\n`);
  }

  passing(data) {
    this.#send(`event: passing\ndata: ${data}\n\n`);
  }

  comment() {
    this.#send(":\n");
  }

  /** Every connection is cut; none can be made. */
  stop() {
    this.up = false;
    for (const connection of [...this.connections]) connection.end(new TypeError("cut"));
  }

  start() {
    this.up = true;
  }

  #send(text) {
    for (const connection of this.connections) connection.send(text);
  }

  #opening() {
    let text = "";
    for (const [key, version] of this.values) text += `event: value\ndata: ${key}=${version}\n\n`;
    return `${text}event: stream-open\ndata: {}\nid: ${this.log.at(-1).id}\n\n`;
  }

  #beginning(last) {
    if (this.ownIds || this.anonymous) return "";
    if (!last) return this.#opening();
    const at = this.log.findIndex(({ id }) => id === last);
    if (at >= 0 && at >= this.first - 1) {
      return this.log.slice(at + 1).filter(({ visible }) => visible).map(({ block }) => block).join("");
    }
    return `event: stream-reset\ndata: {"reason":"history-lost"}\n\n${this.#opening()}`;
  }

  fetch(tab, address, { headers, signal }) {
    const { world } = this;
    return new Promise((resolve, reject) => {
      const connection = new Wire(tab, this);
      if ([...tab.requests].some(({ over }) => !over)) world.errors.push(`${tab.name}: two connections`);
      const abort = () => {
        reject(new DOMException("aborted", "AbortError"));
        connection.gone();
      };
      signal.addEventListener("abort", abort);
      tab.requests.add(connection);
      world.at(world.between(1, 20), () => {
        if (connection.over) return;
        connection.over = !this.up;
        if (!this.up) return world.at(1, () => reject(new TypeError("refused")), tab, "net");
        const other = this.answer?.(address);
        connection.over = Boolean(other);
        if (other) return world.at(1, () => resolve(other), tab, "net");
        this.connections.add(connection);
        connection.name = this.count++;
        this.most = Math.max(this.most, this.connections.size);
        connection.send(`:\n${this.#beginning(headers.get("Last-Event-ID"))}`);
        const answer = {
          status: 200,
          url: String(address),
          headers: new Headers({ "Content-Type": "text/event-stream" }),
          body: { getReader: () => connection },
        };
        world.at(world.between(1, 20), () => resolve(answer), tab, "net");
      });
    });
  }
}

/** One connection: bytes arrive late, in order, and cut anywhere. */
class Wire {
  over = false;
  swallow = false;
  #arrived = [];
  #readers = [];
  #last = 0;

  constructor(tab, server) {
    this.tab = tab;
    this.server = server;
  }

  send(text) {
    if (this.swallow) return;
    const { world } = this.server;
    const bytes = new TextEncoder().encode(text);
    const cut = Math.floor(world.random() * (bytes.length + 1));
    const slow = this.slow ?? this.server.slow ?? 20;
    for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
      if (!part.length) continue;
      this.#last = Math.max(this.#last, world.now + world.between(0, slow));
      world.at(this.#last - world.now, () => this.#arrive({ done: false, value: part }), this.tab, "net");
    }
  }

  end(error) {
    const { world } = this.server;
    this.server.connections.delete(this);
    this.over = true;
    const at = Math.max(this.#last - world.now, 0) + 1;
    world.at(at, () => this.#arrive(error ? { error } : { done: true }), this.tab, "net");
  }

  /** The client has left. */
  gone() {
    this.over = true;
    this.left = true;
    this.tab.requests.delete(this);
    this.server.connections.delete(this);
    if (this.tab.dead) return; // nothing of it runs any more
    for (const { reject } of this.#readers.splice(0)) reject(new DOMException("aborted", "AbortError"));
  }

  read() {
    return new Promise((resolve, reject) => {
      this.#readers.push({ resolve, reject });
      this.#serve();
    });
  }

  #arrive(what) {
    if (this.left) return;
    this.#arrived.push(what);
    this.#serve();
  }

  #serve() {
    if (!this.#readers.length || !this.#arrived.length) return;
    const { resolve, reject } = this.#readers.shift();
    const { error, ...result } = this.#arrived.shift();
    if (error) reject(error);
    else resolve(result);
  }
}
