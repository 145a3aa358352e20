// An EventSource that survives deploys, dead connections and seven tabs.
//
// Three parts, each of which knows only the one before it:
//
//   Decoder      bytes in, blocks out: the format of the HTML standard, and nothing else.
//   Connection   one fetch after another: opens, watches the bytes, reopens.
//   Feed         where this tab's events come from: its own connection, or that of another tab.
//
// and Stream, the EventSource that a page sees.
//
// How tabs share. Tabs that want the same stream queue for one Web Lock. The tab that holds it is
// the leader: it has the connection and posts each chunk on a BroadcastChannel. Why no event is
// lost or repeated:
//
// - A tab's position is the last id that it has dispatched. Ids are compared for equality, never
//   for order: only the server knows their order. A tab takes from the leader what follows its own
//   position in the leader's list; as long as that is not there, the tab asks the server, with a
//   connection of its own.
// - Each term of a leader has an epoch, and each batch of a term a number. A tab takes the batch
//   with the next number, and asks after a gap. A lower epoch is that of a former leader and is
//   ignored.
// - A new tab has its own connection until its first id, because values of keys and passing events
//   have none.
//
// The modes of a Feed, and what a message of the leader does in each:
//
//   alone      no sharing here                        (hears nothing)
//   leader     holds the lock, posts                  a higher epoch: asking
//   synced     takes the leader's batches             next number: take; a gap: asking
//   asking     has asked the leader for what follows  the answer, or a batch that holds its
//              its position                           position: synced; no answer: own
//   own        reads by itself, until its position    its position in a batch: synced; the leader
//              is in the leader's list                is silent too: loose
//   loose      had everything when it closed its own  a batch that follows its position: synced;
//              connection, but its id is not the      any other with ids: own
//              leader's (a `stream-open` has the id of any channel's last event)

const CHANNEL = "ssekit 1"; // a change of the messages below needs another name
const NOT_PART_OF_KEY = ["ticket", "token", "last_event_id"];
const LONGEST_TIMER = 2 ** 31 - 1; // ms; more would fire at once
const MOST_CHARACTERS = 2 ** 24; // of one event
const KEPT = 2000; // entries of a list
const KEPT_CHARACTERS = 2 ** 20;
const ANSWER_WITHIN = 250; // ms
const SILENT = 1000; // ms after which a leader is asked whether it is alive
const SETTLED = 15000; // ms without an event

/**
 * One block of a stream. `type` is empty for a block without data; `marked` says whether it has an
 * id of its own, and `id` is the last id either way.
 * @typedef {{ type: string, data: string, id: string, marked: boolean }} Entry
 */

/** Decodes the bytes of one connection (HTML standard, 9.2.6). */
export class Decoder {
  #text = new TextDecoder(); // removes one BOM
  #line = "";
  #afterCr = false;
  #type = "";
  /** @type {string[]} */
  #data = [];
  #size = 0;
  #id;
  #marked = false;
  /** @type {number | undefined} The last `retry:` in milliseconds. */
  retry;

  /** @param {string} [lastEventId] the last id of the connection before this one */
  constructor(lastEventId = "") {
    this.#id = lastEventId;
  }

  /**
   * Takes the next bytes and returns the blocks that they complete. Throws a RangeError for an
   * event that is larger than 16 million characters.
   * @param {Uint8Array} chunk
   * @returns {Entry[]}
   */
  feed(chunk) {
    let text = this.#text.decode(chunk, { stream: true });
    if (!text) return [];
    // A CR ends its line at once; the LF of a CRLF may come in the next chunk.
    if (this.#afterCr && text[0] === "\n") text = text.slice(1);
    this.#afterCr = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = /** @type {string} */ (lines.pop());
    const entries = lines.flatMap((line) => (line ? this.#field(line) : this.#block()));
    if (this.#line.length + this.#size > MOST_CHARACTERS) throw new RangeError("event too large");
    return entries;
  }

  /**
   * @param {string} line
   * @returns {Entry[]}
   */
  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") {
      this.#data.push(value);
      this.#size += value.length + 1;
    } else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) {
      this.#id = value;
      this.#marked = true;
    } else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
    return [];
  }

  /** @returns {Entry[]} */
  #block() {
    const type = this.#data.length ? this.#type || "message" : "";
    const entry = { type, data: this.#data.join("\n"), id: this.#id, marked: this.#marked };
    this.#type = "";
    this.#data = [];
    this.#size = 0;
    this.#marked = false;
    return entry.type || entry.marked ? [entry] : [];
  }
}

/**
 * @typedef {"connecting" | "open" | "waiting" | "paused" | "closed"} State
 * @typedef {"" | "network" | "ended" | "silence" | "status" | "type" | "size" | "refresh"
 *   | "refused" | "finished" | "hidden" | "closed"} Reason
 * @typedef {"alone" | "leader" | "follower" | "joining"} Role
 *
 * What a stream is doing, and why.
 * @typedef {object} Status
 * @property {State} state `waiting`: until `retryAt`; `paused`: the page is hidden or frozen;
 *   `closed`: it does not come back
 * @property {Reason} reason why it is not open: `network`: no connection, or a broken one;
 *   `ended`: the server ended it; `silence`: not a byte in time; `status`, `type`: the answer had
 *   another status or content type; `size`: an event was too large; `refused`: 401 or 403;
 *   `refresh`: that option failed; `finished`: 204, there is nothing more to come; `hidden`: the
 *   page; `closed`: by close(), or closeAll() in some tab
 * @property {number} code the last answer's status, 0 if there was none
 * @property {number} retryAt when the next try is made, in milliseconds since 1970, else 0
 * @property {Role} role `leader`: its connection serves all tabs; `follower`: another tab's serves
 *   it; `joining`: it still has one of its own; `alone`: it shares none, also while paused and once
 *   closed
 */

/**
 * @internal
 * @typedef {Omit<Status, "role">} Condition
 */

/** @returns {Condition} */
const condition = (
  /** @type {State} */ state,
  /** @type {Reason} */ reason = "",
  code = 0,
  retryAt = 0,
) => ({ state, reason, code, retryAt });

/**
 * Where to ask. `fresh`: it came from `refresh`.
 * @internal
 * @typedef {{ url: string, headers: [string, string][], fresh?: boolean }} Address
 */

/**
 * What Stream's options come to. `address` and `refreshed` change.
 * @internal
 * @typedef {object} Settings
 * @property {Address} address
 * @property {RequestInit} init
 * @property {typeof fetch | undefined} fetch
 * @property {number} delay
 * @property {number} maxDelay
 * @property {number} silence
 * @property {Options["refresh"]} refresh
 * @property {boolean} refreshed
 * @property {string} channel empty if it is not shared
 * @property {boolean} live
 */

/** Opens a stream and reopens it until it is closed or the answer is final. */
class Connection {
  #settings;
  #host;
  #abort = new AbortController();
  #lastByte = 0;
  #failures = 0;
  /** @type {number | undefined} */
  #retry;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {Promise<void> | undefined} */
  #paused;
  #resume = () => {};
  condition = condition("connecting");

  /**
   * @param {Settings} settings
   * @param {{ last: string, connected: (response: Response) => void,
   *   arrive: (entries: Entry[]) => void,
   *   changed: (condition: Condition, response?: Response) => void }} host
   */
  constructor(settings, host) {
    this.#settings = settings;
    this.#host = host;
  }

  open() {
    clearTimeout(this.#timer);
    this.#run();
  }

  close() {
    clearTimeout(this.#timer);
    // Firefox keeps a silent stream open after reader.cancel(); abort() closes it everywhere.
    // A final answer is the handlers' to read.
    if (this.condition.state !== "closed") this.#abort.abort();
    this.resume();
  }

  /** Reads no further until `resume`. */
  pause() {
    this.#paused ??= new Promise((resolve) => (this.#resume = resolve));
  }

  resume() {
    this.#paused = undefined;
    this.#resume();
  }

  /** The network is back: ends a wait for it, but not one that an answer asked for. */
  online() {
    if (this.condition.state === "waiting" && this.condition.reason === "network") this.open();
  }

  /** Replaces the connection, or ends the wait for the next try. */
  reconnect() {
    this.#abort.abort();
    this.resume();
    this.open();
  }

  /** Whether its timers run: bytes or the next try came in time. */
  get alive() {
    const { state, retryAt } = this.condition;
    const { silence } = this.#settings;
    return Date.now() < (state === "waiting" ? retryAt : this.#lastByte + silence) + 2000;
  }

  /** Replaces the connection if it has been silent for too long. */
  check(late = false) {
    if (this.condition.state === "waiting" || this.#abort.signal.aborted) return;
    clearTimeout(this.#timer);
    const { silence } = this.#settings;
    const left = this.#lastByte + silence - Date.now();
    // Often enough to notice that the machine has slept: timers stop meanwhile.
    const next = left > 0 ? Math.min(left, Math.max(silence / 3, 1000)) : 0;
    if (next || !late) {
      // After a block, bytes may be queued behind this timer: let them come first.
      const due = left <= 0;
      this.#timer = setTimeout(() => this.check(due), due ? 500 : next);
    } else {
      this.#abort.abort();
      this.resume();
      this.#later("silence");
    }
  }

  /** @param {Condition} now @param {Response} [response] */
  #become(now, response) {
    this.condition = now;
    this.#host.changed(now, response);
  }

  /** @param {Reason} reason */
  #later(reason, code = 0, after = 0) {
    clearTimeout(this.#timer);
    const { delay, maxDelay } = this.#settings;
    const jitter = Math.random() * Math.min(maxDelay, delay * 2 ** this.#failures);
    this.#failures += 1;
    const wait = Math.min(Math.max(after, this.#retry ?? 0) + jitter, LONGEST_TIMER);
    // The timer first: a handler may close the stream. WebKit fails a stream before `pagehide`, so
    // that even the shortest wait has to be a task of its own.
    this.#timer = setTimeout(() => this.open(), wait);
    this.#become(condition("waiting", reason, code, Date.now() + wait));
  }

  async #run() {
    const abort = (this.#abort = new AbortController());
    const { signal } = abort;
    const settings = this.#settings;
    const started = (this.#lastByte = Date.now());
    const last = this.#host.last;
    const headers = new Headers(settings.address.headers);
    if (!headers.has("Accept")) headers.set("Accept", "text/event-stream");
    if (last) headers.set("Last-Event-ID", headerValue(last));
    this.#become(condition("connecting", this.condition.reason));
    if (signal.aborted) return; // a handler closed it
    this.check();
    /** @type {Response | undefined} */
    let response;
    let reading = false;
    try {
      response = await (settings.fetch ?? fetch)(settings.address.url, {
        ...settings.init,
        headers,
        signal,
      });
      if (signal.aborted) return;
      const body = response.body;
      const type = response.headers.get("Content-Type") ?? "";
      if (response.status === 200 && body && /^text\/event-stream *(;|$)/i.test(type)) {
        settings.refreshed = false;
        reading = true;
        this.#lastByte = Date.now();
        this.#host.connected(response);
        this.#become(condition("open", "", 200), response);
        await this.#read(body, new Decoder(last), signal);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof RangeError) return this.#fail("size", 200, response);
      response = undefined;
    }
    if (signal.aborted) return;
    if (reading && Date.now() - started > 10000) this.#failures = 0;
    if (!response || reading) return this.#later(response ? "ended" : "network", response?.status);
    await this.#judge(response, abort);
  }

  /**
   * @param {ReadableStream<Uint8Array>} body
   * @param {Decoder} decoder
   * @param {AbortSignal} signal
   */
  async #read(body, decoder, signal) {
    const reader = body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (this.#paused) await this.#paused;
      if (done || signal.aborted) return;
      this.#lastByte = Date.now();
      const entries = decoder.feed(value);
      this.#retry = decoder.retry ?? this.#retry;
      if (entries.length) {
        this.#failures = 0;
        this.#host.arrive(entries);
      }
      if (signal.aborted) return;
    }
  }

  /**
   * Decides what follows an answer that is not a stream.
   * @param {Response} response
   * @param {AbortController} abort
   */
  async #judge(response, abort) {
    const { status, headers } = response;
    if (status === 204) return this.#fail("finished", status, response);
    if (status >= 500 || status === 429) {
      const text = headers.get("Retry-After") ?? "0";
      const after = Number(text) * 1000;
      abort.abort();
      return this.#later("status", status, after >= 0 ? after : Date.parse(text) - Date.now() || 0);
    }
    const refused = status === 401 || status === 403;
    const settings = this.#settings;
    if (refused && settings.refresh && !settings.refreshed) {
      try {
        const fresh = await settings.refresh(response);
        if (abort.signal.aborted) return;
        if (fresh) {
          settings.refreshed = true;
          settings.address = addressOf(settings.address, fresh);
          abort.abort();
          return this.open();
        }
      } catch {
        // The server of tickets may be down as well, which is not a refusal.
        if (abort.signal.aborted) return;
        abort.abort();
        return this.#later("refresh", status);
      }
    }
    this.#fail(refused ? "refused" : status === 200 ? "type" : "status", status, response);
  }

  /**
   * @param {Reason} reason
   * @param {number} code
   * @param {Response} [response]
   */
  #fail(reason, code, response) {
    clearTimeout(this.#timer);
    this.#become(condition("closed", reason, code), response);
    // A handler may be reading the answer.
    if (!response?.bodyUsed || reason === "size") this.#abort.abort();
  }
}

/**
 * @internal
 * @typedef {{ from: string, after: string, extra: number, live: boolean }} Ask
 */

/**
 * @internal
 * @typedef {{ kind: "ping" } | { kind: "close" } | { kind: "reconnect" }
 *   | { kind: "ask", ask: Ask }} OthersMessage
 */

/**
 * What the leader says: its epoch and the number of its last batch are in each message.
 * @internal
 * @typedef {{ epoch: number, n: number } & (
 *   { kind: "beat", last: string, condition: Condition, address: Address }
 *   | { kind: "batch", prev: string, entries: Entry[] }
 *   | { kind: "answer", ask: Ask, entries: Entry[] | null, condition: Condition }
 *   | { kind: "final", condition: Condition, address: Address })} LeaderMessage
 */

/** The newest entries of a list. */
class Recent {
  /** @type {Entry[]} */
  entries = [];
  #characters = 0;

  /** @param {Entry[]} more */
  add(more) {
    for (const entry of more) {
      this.entries.push(entry);
      this.#characters += entry.data.length;
      while (this.entries.length > KEPT || this.#characters > KEPT_CHARACTERS) {
        this.#characters -= /** @type {Entry} */ (this.entries.shift()).data.length;
      }
    }
  }
}

/** Brings each entry of a stream to this tab once, in order, from wherever it comes. */
class Feed {
  #settings;
  #sink;
  #me = Math.random().toString(36).slice(2);
  /** @type {"alone" | "leader" | "synced" | "asking" | "own" | "loose"} */
  #mode = "alone";
  #running = false;
  /** @type {Connection | undefined} */
  #connection;
  /** @type {BroadcastChannel | undefined} */
  #channel;

  // The position: the last id dispatched, and how many entries without an id since. Infinity:
  // the leader's list does not tell which of them this tab has had. `unmarked`: during an opening,
  // whose entries belong to no id.
  last;
  #extra = 0;
  #unmarked = true;
  #recent = new Recent(); // what was dispatched here, for tabs that ask

  // What this tab has heard of the leader's list, but not taken.
  #heard = new Recent();
  #heardTo = 0;
  #heardAt = 0;
  #heardIdAt = 0;
  #leader = condition("connecting");

  // This tab's own connection beside the leader's.
  #ownSince = 0;
  #ownIdAt = 0;
  #ownIdType = "";
  #gap = false;
  #askedAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #askTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #watchTimer;

  // The lock, this tab's place in its queue, and its term.
  #place = new AbortController();
  #release = () => {};
  #epoch = 0;
  #n = 0;

  /**
   * @param {Settings} settings
   * @param {string} last
   * @param {{ entry: (entry: Entry) => void, opening: () => void,
   *   changed: (condition: Condition, role: Role, response?: Response) => void }} sink
   */
  constructor(settings, last, sink) {
    this.#settings = settings;
    this.last = last;
    this.#unmarked = !last;
    this.#sink = sink;
    this.origin = new URL(settings.address.url).origin;
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    const name = this.#settings.channel;
    if (!name) return this.#alone();
    try {
      this.#channel = new BroadcastChannel(name);
    } catch {
      return this.#alone(); // an opaque origin
    }
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#heardAt = Date.now();
    this.#heard = new Recent();
    this.#leader = condition("connecting");
    this.#queue();
    this.#watch();
    // A leader may know what follows the position; the server does in any case.
    if (this.#settings.live || (this.#mark && this.#extra < Infinity)) this.#ask();
    else this.#own();
  }

  stop() {
    this.#running = false;
    this.#connection?.close();
    this.#connection = undefined;
    clearTimeout(this.#askTimer);
    clearTimeout(this.#watchTimer);
    this.#place.abort();
    this.#release();
    // Chromium evicts a page from bfcache when an open channel receives a message.
    this.#channel?.close();
    this.#channel = undefined;
  }

  closeAll() {
    this.#post({ kind: "close" });
  }

  reconnect() {
    if (this.#connection) this.#connection.reconnect();
    else this.#post({ kind: "reconnect" });
  }

  online() {
    this.#connection?.online();
  }

  check() {
    this.#connection?.check();
  }

  get key() {
    return this.#mode === "alone" ? "" : this.#settings.channel;
  }

  // Entries.

  /** @param {Entry[]} entries */
  #take(entries) {
    for (const entry of entries) {
      if (!this.#running) return; // a handler closed it
      if (entry.marked) {
        this.last = entry.id;
        this.#extra = 0;
        this.#unmarked = false;
      } else {
        this.#extra += this.#mode === "own" ? Infinity : 1;
        if (entry.type === "stream-reset") this.#unmarked = true;
      }
      if (this.#mode !== "alone") this.#recent.add([entry]);
      if (entry.type) this.#sink.entry(entry);
    }
  }

  /** The last id for tabs to compare: none while an opening is under way. */
  get #mark() {
    return this.#unmarked ? "" : this.last;
  }

  /** @param {Entry[]} entries from this tab's connection */
  #arrive(entries) {
    if (this.#mode === "leader") {
      // Posted first: if a handler here fails or blocks, the others have it.
      this.#lead({ kind: "batch", prev: this.#mark, entries, n: ++this.#n });
    }
    if (this.#mode !== "own") return this.#take(entries);
    for (const entry of entries) {
      this.#take([entry]);
      if (!this.#running) return;
      if (entry.marked) {
        this.#ownIdAt = Date.now();
        this.#ownIdType = entry.type;
        if (this.#join()) return;
      }
    }
    if (!this.#extra) this.#hold();
  }

  #connect() {
    if (!this.#running) return;
    this.#connection?.close();
    const feed = this;
    this.#connection = new Connection(this.#settings, {
      get last() {
        return feed.last;
      },
      connected: (response) => {
        this.origin = new URL(response.url || this.#settings.address.url).origin;
        if (!this.last) this.#sink.opening();
      },
      arrive: (entries) => this.#arrive(entries),
      changed: (now, response) => this.#changed(now, response),
    });
    this.#connection.open();
  }

  /** @param {Condition} now @param {Response} [response] of this tab's connection */
  #changed(now, response) {
    if (this.#mode === "leader") {
      if (now.state !== "closed") this.#beat(now);
      else {
        this.#lead({ kind: "final", condition: now, address: this.#settings.address });
        // All tabs hear it before the next in the queue gets the lock.
        setTimeout(this.#release, ANSWER_WITHIN);
        this.#release = () => {};
      }
    }
    // A connection for a moment is not reported while the leader's is open.
    const aside = this.#mode === "own" && this.#leader.state === "open" && this.last;
    if (now.state !== "connecting" || !aside) this.#show(now, response);
  }

  /** @param {Condition} now @param {Response} [response] */
  #show(now, response) {
    /** @type {Record<string, Role>} */
    const roles = { alone: "alone", leader: "leader", own: "joining" };
    const closed = now.state === "closed";
    if (closed) this.stop();
    this.#sink.changed(now, closed ? "alone" : (roles[this.#mode] ?? "follower"), response);
  }

  // Modes.

  #alone() {
    this.#mode = "alone";
    this.#channel?.close();
    this.#channel = undefined;
    clearTimeout(this.#watchTimer);
    clearTimeout(this.#askTimer);
    this.#connection?.resume();
    if (!this.#connection) this.#connect();
  }

  #own() {
    if (!this.#running) return; // a handler closed it
    clearTimeout(this.#askTimer);
    this.#mode = "own";
    this.#ownSince = this.#ownIdAt = Date.now();
    this.#ownIdType = "";
    this.#askedAt = 0;
    this.#settle();
    this.#connect();
  }

  /** Checks now and then whether both lists must be equal, as nothing has come for so long. */
  #settle() {
    clearTimeout(this.#askTimer);
    this.#askTimer = setTimeout(() => {
      this.#settle();
      this.#hold();
    }, 5000);
  }

  /** Waits for the leader at this position; the connection is kept, but not read. */
  #hold() {
    if (this.#connection?.condition.state !== "open" || !this.#mark) return;
    if (Date.now() - this.#askedAt < 2000) return;
    this.#askedAt = Date.now();
    this.#gap = false;
    const from = this.#heard.entries.length;
    this.#connection?.pause();
    this.#postAsk();
    clearTimeout(this.#askTimer);
    this.#askTimer = setTimeout(() => {
      const since = (/** @type {number} */ time) => Date.now() - time > SETTLED;
      const heardNone = this.#heardIdAt < this.#ownSince || since(this.#heardIdAt);
      const open = this.#leader.state === "open";
      // This tab has everything: `stream-open` says so, or nothing has come for long. What has
      // passed since is unread on this connection, and in the leader's list.
      const opened = this.#ownIdType === "stream-open";
      const heard = this.#heard.entries;
      const passed = this.#recent.entries.at(-1);
      const none = !passed || passed.marked;
      const at = none ? from - 1 : heard.findLastIndex(
        ({ type, data, marked }) => type === passed.type && data === passed.data && !marked,
      );
      const same = none || at >= 0;
      if (this.#gap && open && heardNone && same && (opened || since(this.#ownIdAt))) {
        this.#drop();
        this.#mode = "loose";
        this.#show(this.#leader);
        this.#take(heard.slice(at + 1).filter(({ type }) => type));
      } else {
        this.#connection?.resume();
        this.#settle();
      }
    }, ANSWER_WITHIN);
  }

  #drop() {
    clearTimeout(this.#askTimer);
    this.#connection?.close();
    this.#connection = undefined;
  }

  #ask() {
    if (!this.#running) return; // a handler closed it
    this.#drop();
    this.#mode = "asking";
    this.#postAsk();
    this.#askTimer = setTimeout(() => this.#own(), ANSWER_WITHIN);
  }

  #postAsk() {
    const { live } = this.#settings;
    const ask = { from: this.#me, after: this.last, extra: this.#extra, live };
    this.#post({ kind: "ask", ask });
  }

  /**
   * From here on this tab has what the leader has.
   * @param {number} n
   * @param {Entry[]} entries
   */
  #follow(n, entries) {
    this.#drop();
    this.#mode = "synced";
    this.#n = n;
    this.#heard = new Recent();
    this.#show(this.#leader);
    this.#take(entries);
  }

  /** Follows the leader if its list holds this tab's position. */
  #join() {
    if (this.#extra || !this.#mark) return false;
    const heard = this.#heard.entries;
    const at = indexOf(heard, this.last);
    if (at < 0) return false;
    this.#follow(this.#heardTo, heard.slice(at + 1));
    return true;
  }

  // The leader.

  #queue() {
    const place = (this.#place = new AbortController());
    this.#request(place, { signal: place.signal });
  }

  #steal() {
    this.#place.abort();
    this.#request((this.#place = new AbortController()), { steal: true });
  }

  /** @param {AbortController} place @param {LockOptions} options */
  #request(place, options) {
    navigator.locks
      .request(this.#settings.channel, options, () => {
        if (place.signal.aborted) return undefined;
        return new Promise((resolve) => {
          this.#release = () => resolve(undefined);
          this.#rise();
        });
      })
      .catch((error) => {
        if (place.signal.aborted) return;
        if (error.name !== "AbortError") return this.#alone(); // no locks for this origin
        this.#demote();
        this.#ask();
      });
  }

  #rise() {
    this.#mode = "leader";
    // The fraction: two terms may begin in one millisecond.
    this.#epoch = Math.max(this.#epoch + 1, Date.now() + Math.random());
    this.#n = 0;
    this.#heard = new Recent();
    clearTimeout(this.#askTimer);
    clearTimeout(this.#watchTimer);
    this.#connection?.resume();
    if (this.#connection) this.#changed(this.#connection.condition);
    else this.#connect();
  }

  /** Another tab leads now. */
  #demote() {
    if (this.#mode !== "leader") return;
    this.#drop();
    this.#release();
    this.#place.abort();
    this.#queue();
    this.#heardAt = Date.now();
    this.#watch();
    this.#mode = "asking";
    // The new leader's list does not have what this tab has read since that term began.
    this.#extra = this.#extra ? Infinity : 0;
  }

  /** @param {Condition} now */
  #beat(now) {
    const { address } = this.#settings;
    this.#lead({ kind: "beat", last: this.#mark, condition: now, address });
  }

  /** @param {any} message */
  #lead(message) {
    this.#post({ epoch: this.#epoch, n: this.#n, ...message });
  }

  /** @param {OthersMessage | LeaderMessage} message */
  #post(message) {
    this.#channel?.postMessage(message);
  }

  /** @param {Ask} ask */
  #answer(ask) {
    let { after, extra, live } = ask;
    const recent = this.#recent.entries;
    let at = after && extra < Infinity ? indexOf(recent, after) : -1;
    const known = at++ >= 0;
    for (; extra > 0 && recent[at]?.marked === false; extra--) at++;
    const entries = live ? [] : known ? recent.slice(at) : null;
    this.#lead({ kind: "answer", ask, entries, condition: this.#connection?.condition });
  }

  /** Asks a silent leader whether it is alive, waits, and takes the lock from it. */
  #watch() {
    clearTimeout(this.#watchTimer);
    const silent = Date.now() - this.#heardAt;
    const again = () => {
      if (Date.now() - this.#heardAt < SILENT) return this.#watch();
      const asked = Date.now();
      this.#post({ kind: "ping" });
      // Not all tabs at once: the others hear the first to steal, and then wait.
      this.#watchTimer = setTimeout(
        () => (this.#heardAt < asked ? this.#steal() : this.#watch()),
        400 + Math.random() * 800,
      );
    };
    this.#watchTimer = setTimeout(again, Math.max(SILENT - silent, 50));
  }

  // What others say.

  /** @param {OthersMessage | LeaderMessage} message */
  #hear(message) {
    const leading = this.#mode === "leader";
    if (message.kind === "close") this.#show(condition("closed", "closed"));
    // An answer has to mean that events come: a frozen page runs this handler, but reads nothing.
    else if (message.kind === "ping") {
      if (leading && this.#connection?.alive) this.#beat(this.#connection.condition);
    } else if (message.kind === "ask") {
      if (leading) this.#answer(message.ask);
    } else if (message.kind === "reconnect") {
      if (leading) this.#connection?.reconnect();
    } else this.#hearLeader(message);
  }

  /** @param {LeaderMessage} message */
  #hearLeader(message) {
    const leading = this.#mode === "leader";
    if (message.epoch < this.#epoch || (leading && message.epoch === this.#epoch)) return;
    const newTerm = message.epoch > this.#epoch;
    this.#epoch = message.epoch;
    this.#heardAt = Date.now();
    if (newTerm) {
      this.#demote();
      this.#heard = new Recent();
      if (this.#mode === "synced" || this.#mode === "loose") this.#mode = "asking";
    }
    if (message.kind === "beat") this.#hearBeat(message);
    else if (message.kind === "batch") this.#hearBatch(message);
    else if (message.kind === "final") return this.#hearFinal(message);
    else if (message.ask.from === this.#me) this.#hearAnswer(message);
    if (newTerm && this.#mode === "asking") this.#ask();
  }

  /** @param {LeaderMessage & { kind: "beat" }} message */
  #hearBeat({ n, last, condition, address }) {
    this.#leader = condition;
    // One tab's `refresh` serves all tabs.
    if (address.fresh) this.#settings.address = address;
    if (this.#mode === "synced") {
      if (n > this.#n) return this.#ask();
    } else if (this.#settings.live) {
      return this.#follow(n, []);
    } else if (last && last === this.#mark && (this.#mode === "loose" || !this.#extra)) {
      return this.#follow(n, []);
    }
    if (this.#mode === "synced" || this.#mode === "loose") this.#show(condition);
  }

  /** @param {LeaderMessage & { kind: "batch" }} message */
  #hearBatch({ n, prev, entries }) {
    if (entries.some(({ marked }) => marked)) this.#heardIdAt = Date.now();
    this.#leader = condition("open", "", 200);
    if (this.#settings.live && this.#mode !== "synced") return this.#follow(n, entries);
    if (this.#mode === "synced") {
      if (n !== this.#n + 1) return this.#ask(); // one was lost
      this.#n = n;
      return this.#take(entries);
    }
    if (this.#heardTo + 1 !== n || !this.#heard.entries.length) {
      this.#heard = new Recent();
      this.#heard.add([{ type: "", data: "", id: prev, marked: !!prev }]);
    }
    this.#heard.add(entries);
    this.#heardTo = n;
    if (this.#mode !== "loose") {
      this.#join();
      return;
    }
    const at = indexOf(entries, this.last);
    if (at >= 0 || (prev && prev === this.last)) this.#follow(n, entries.slice(at + 1));
    // Only the server knows whether these come before or after its position.
    else if (entries.some(({ marked, type }) => marked || type === "stream-reset")) this.#own();
    else if (prev) this.#take(entries);
  }

  /** @param {LeaderMessage & { kind: "answer" }} message */
  #hearAnswer({ n, ask, entries, condition }) {
    this.#leader = condition;
    if (this.#mode !== "asking" && this.#mode !== "own") return;
    if (ask.after !== this.last || ask.extra !== this.#extra) return; // too late
    if (entries) return this.#follow(n, entries);
    this.#gap = true;
    if (this.#mode === "own") return;
    // A new leader may be about to read what this tab has already.
    clearTimeout(this.#askTimer);
    this.#askTimer = setTimeout(() => this.#own(), 100);
  }

  /** @param {LeaderMessage & { kind: "final" }} message */
  #hearFinal({ n, condition, address }) {
    if (this.#mode === "own") return;
    // "finished" is the answer to a position and "refused" that to a ticket: a tab with another
    // one asks the server itself.
    const same = {
      finished: this.#mode === "synced" && n === this.#n,
      refused: address.url === this.#settings.address.url,
    };
    if (/** @type {Record<string, boolean>} */ (same)[condition.reason] ?? true) {
      this.#show(condition);
    } else this.#own();
  }
}

/**
 * Header values are bytes; an id is sent as UTF-8, as EventSource does.
 * @param {string} text
 */
const headerValue = (text) =>
  Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");

/** @param {Entry[]} entries @param {string} id */
const indexOf = (entries, id) => entries.findLastIndex((entry) => entry.marked && entry.id === id);

/** @param {string | URL} url */
const resolve = (url) => {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  try {
    return new URL(url, base).href;
  } catch {
    throw new DOMException(`${url} is not a valid URL`, "SyntaxError");
  }
};

/** @param {Address} before @param {string | { url?: string | URL, headers?: HeadersInit }} now */
const addressOf = (before, now) => {
  const { url, headers } = typeof now === "string" ? { url: now } : now;
  return {
    url: url ? resolve(url) : before.url,
    headers: headers ? [...new Headers(headers)] : before.headers,
    fresh: true,
  };
};

/**
 * The options of a Stream.
 * @typedef {object} Options
 * @property {boolean} [withCredentials] send cookies to other origins; default false
 * @property {string} [method] default GET
 * @property {HeadersInit} [headers] sent with each request
 * @property {BodyInit} [body] sent with each request
 * @property {string} [lastEventId] the position to begin after; default: that of
 *   `?last_event_id=` in the address
 * @property {typeof fetch} [fetch] used instead of the global one
 * @property {AbortSignal} [signal] closes the stream
 * @property {number} [delay] milliseconds: the first try to open it again comes at a random time
 *   within them, and the bound doubles from try to try; what the server asks for, with `retry:` or
 *   `Retry-After`, is waited for before that; default 1000
 * @property {number} [maxDelay] milliseconds: the bound grows no further; default 30000
 * @property {number} [silence] milliseconds without a byte after which the connection is
 *   replaced; default 45000, three of ssekit's heartbeats
 * @property {(response: Response) => RefreshedAddress | Promise<RefreshedAddress>} [refresh]
 *   called once after a 401 or 403; returns a new address, new headers, or null to give up
 * @property {boolean | string} [share] whether tabs share one connection, where the browser can;
 *   a string names the user, so that no tab joins another user's connection; default: true for a
 *   GET
 * @property {boolean} [live] only new events matter, and they may have no ids: a tab follows the
 *   others at once and asks for no earlier events; default false
 * @property {"keep" | "close"} [whenHidden] "close": no connection while the page is hidden;
 *   default "keep"
 * @property {boolean} [json] handlers of `on` and `values` get data as parsed JSON; default false
 * @property {(event: MessageEvent<string>) => string | null | undefined} [key] the key under which
 *   `values` keeps an event's data
 */

/**
 * @typedef {string | { url?: string | URL, headers?: HeadersInit } | null | undefined}
 *   RefreshedAddress
 */

/**
 * What `on` passes for a stream's own events, and for the hub's.
 * @typedef {object} OwnEvents
 * @property {Event} open
 * @property {Event & { response?: Response }} error
 * @property {Event} reset
 * @property {Event} statuschange
 * @property {Record<string, never>} stream-open
 * @property {{ reason: string }} stream-reset
 * @property {{ channel: string, reason: string, data: any }} stream-end
 * @property {{ channel: string, key: string }} stream-remove
 * @property {{ channel: string, member: string, value: any }} stream-join
 * @property {{ channel: string, member: string, value: any }} stream-leave
 */

/** A loop that is more events behind ends with an error. */
const MOST_WAITING = 10000;

/**
 * A stream of Server-Sent Events: an EventSource, and what is missing there. `Events` has the type
 * of the data that `on` passes for each type of event.
 *
 * It fires what an EventSource fires, `statuschange` whenever `status` changes, and `reset` after
 * the hub's `stream-reset`: events have been lost, and what follows is the current state.
 *
 * Iterating yields a MessageEvent for each event of any type and ends with the stream, with an
 * error if that failed. Leaving the loop closes the stream.
 * @template {Record<string, any>} [Events=Record<string, any>]
 */
export class Stream extends EventTarget {
  /** @readonly */ static CONNECTING = 0;
  /** @readonly */ static OPEN = 1;
  /** @readonly */ static CLOSED = 2;
  /** @readonly */ CONNECTING = 0;
  /** @readonly */ OPEN = 1;
  /** @readonly */ CLOSED = 2;

  /** @type {((event: Event) => any) | null} */
  onopen = null;
  /** @type {((event: MessageEvent<string>) => any) | null} */
  onmessage = null;
  /** @type {((event: Event & { response?: Response }) => any) | null} */
  onerror = null;

  /**
   * The newest data of each key, given the option `key`: follows the opening, updates and removals.
   * @readonly
   * @type {Map<string, any>}
   */
  values = new Map();

  #url;
  #json;
  #key;
  #feed;
  /** @type {Status} */
  #status = Object.freeze({ ...condition("connecting"), role: "alone" });
  #listening = new AbortController();
  /** @type {Set<(event?: MessageEvent<string>) => void>} */
  #loops = new Set();

  /**
   * Opens the stream. Throws a SyntaxError if the URL or the last event id is invalid, and a
   * TypeError if no such request can be made.
   * @param {string | URL} url
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    super();
    const { method = "GET", body, signal, share = method === "GET", whenHidden } = options;
    this.#url = resolve(url);
    this.#json = options.json;
    this.#key = options.key;
    /** Whether cookies are sent to other origins. @readonly */
    this.withCredentials = Boolean(options.withCredentials);
    const address = new URL(this.#url);
    const last = options.lastEventId ?? address.searchParams.get("last_event_id") ?? "";
    if (/[\0\r\n]/.test(last)) {
      throw new DOMException("a last event id has no NUL, CR or LF", "SyntaxError");
    }
    const headers = [...new Headers(options.headers)];
    const unkeyed = new URL(address);
    for (const name of NOT_PART_OF_KEY) unkeyed.searchParams.delete(name);
    unkeyed.hash = "";
    // The position is sent as a header, which follows the events.
    if (last) address.searchParams.delete("last_event_id");
    /** @type {RequestInit} */
    const init = {
      method,
      body,
      // Without it Firefox lets the second of two equal requests wait for the first.
      cache: "no-store",
      credentials: this.withCredentials ? "include" : "same-origin",
    };
    new Request(address, init); // throws for what fetch would refuse at each try
    const user = typeof share === "string" ? share : [method, headers, body];
    const shared =
      share !== false &&
      (body == null || typeof body === "string") &&
      globalThis.isSecureContext &&
      globalThis.BroadcastChannel &&
      globalThis.navigator?.locks;
    this.#feed = new Feed(
      {
        address: { url: address.href, headers },
        init,
        fetch: options.fetch,
        delay: options.delay ?? 1000,
        maxDelay: options.maxDelay ?? 30000,
        silence: options.silence ?? 45000,
        refresh: options.refresh,
        refreshed: false,
        live: Boolean(options.live),
        channel: shared
          ? [CHANNEL, unkeyed.href, this.withCredentials, JSON.stringify(user)].join(" ")
          : "",
      },
      last,
      {
        entry: (entry) => this.#dispatch(entry),
        opening: () => this.values.clear(),
        changed: (now, role, response) => this.#become({ ...now, role }, response),
      },
    );
    for (const type of /** @type {const} */ (["open", "message", "error"])) {
      this.addEventListener(type, (/** @type {Event} */ event) => {
        const handler = this[`on${type}`];
        if (typeof handler === "function") handler.call(this, /** @type {any} */ (event));
      });
    }
    if (signal?.aborted) this.close();
    else this.#watchPage(whenHidden === "close");
    signal?.addEventListener("abort", () => this.close(), { signal: this.#listening.signal });
  }

  /** The absolute URL. */
  get url() {
    return this.#url;
  }

  /** CONNECTING, OPEN or CLOSED. */
  get readyState() {
    const { state } = this.#status;
    return state === "open" ? 1 : state === "closed" ? 2 : 0;
  }

  /** What the stream is doing, and why. */
  get status() {
    return this.#status;
  }

  /** The id of the last event, or block with an id, that this tab has had. */
  get lastEventId() {
    return this.#feed.last;
  }

  /** Closes the stream in this tab; other tabs go on. */
  close() {
    if (this.#status.state === "closed") return;
    this.#feed.stop();
    this.#become({ ...condition("closed", "closed"), role: "alone" });
  }

  /** Closes the stream in all tabs that share it: the user has logged out. */
  closeAll() {
    this.#feed.closeAll();
    this.close();
  }

  /** Reconnects now, in whichever tab has the connection. */
  reconnect() {
    this.#feed.reconnect();
  }

  /** How many tabs share the connection; 1 if it is not shared. */
  async tabs() {
    const key = this.#feed.key;
    if (!key) return 1;
    const { held = [], pending = [] } = await navigator.locks.query();
    return [...held, ...pending].filter(({ name }) => name === key).length;
  }

  /**
   * Calls the handler for each event of a type, with its data and the event; with the event alone
   * for `open`, `error`, `reset` and `statuschange`. Data is text; with the option `json`, and for
   * the hub's own events, parsed JSON. Returns a function that removes the handler.
   * @template {string & keyof (Events & OwnEvents)} Type
   * @param {Type} type
   * @param {(data: (Events & OwnEvents)[Type], event: MessageEvent<string>) => any} handler
   * @returns {() => void}
   */
  on(type, handler) {
    const listener = (/** @type {any} */ event) =>
      handler("data" in event ? this.#read(event) : event, event);
    this.addEventListener(type, listener);
    return () => this.removeEventListener(type, listener);
  }

  /**
   * @param {string} type
   * @param {((event: MessageEvent<string>) => any) | EventListenerOrEventListenerObject | null}
   *   listener
   * @param {boolean | AddEventListenerOptions} [options]
   */
  addEventListener(type, listener, options) {
    super.addEventListener(type, /** @type {EventListener} */ (listener), options);
  }

  /** @returns {AsyncGenerator<MessageEvent<string>, void, void>} */
  async *[Symbol.asyncIterator]() {
    /** @type {MessageEvent<string>[]} */
    const waiting = [];
    let wake = () => {};
    const loop = (/** @type {MessageEvent<string> | undefined} */ event) => {
      // One more than allowed, for the loop to see; a loop that waits for long keeps no others.
      if (event && waiting.length <= MOST_WAITING) waiting.push(event);
      wake();
    };
    this.#loops.add(loop);
    try {
      for (;;) {
        if (waiting.length > MOST_WAITING) {
          throw new Error(`this loop is more than ${MOST_WAITING} events behind its stream`);
        }
        const event = waiting.shift();
        const { state, reason, code } = this.#status;
        if (event) yield event;
        else if (state !== "closed") await new Promise((resolve) => (wake = () => resolve(0)));
        else if (["closed", "finished"].includes(reason)) return;
        else throw new Error(`${this.#url} could not be read: ${reason}, status ${code}`);
      }
    } finally {
      this.#loops.delete(loop);
      this.close();
    }
  }

  /** @param {MessageEvent<string>} event */
  #read({ type, data }) {
    return this.#json || type.startsWith("stream-") ? JSON.parse(data) : data;
  }

  /** @param {Entry} entry */
  #dispatch({ type, data, id }) {
    const event = new MessageEvent(type, { data, lastEventId: id, origin: this.#feed.origin });
    try {
      if (this.#key) this.#follow(event, this.#key);
    } catch (error) {
      // Reported as a handler's error is: it must not cost the events that follow.
      queueMicrotask(() => {
        throw error;
      });
    }
    this.dispatchEvent(event);
    for (const loop of this.#loops) loop(event);
    if (type === "stream-reset") this.dispatchEvent(new Event("reset"));
  }

  /** @param {MessageEvent<string>} event @param {NonNullable<Options["key"]>} key */
  #follow(event, key) {
    if (event.type === "stream-reset") this.values.clear();
    else if (event.type === "stream-remove") this.values.delete(this.#read(event).key);
    else if (!event.type.startsWith("stream-")) {
      const name = key(event);
      if (name != null) this.values.set(name, this.#read(event));
    }
  }

  /** @param {Status} now @param {Response} [response] */
  #become(now, response) {
    const before = this.#status;
    if (before.state === "closed") return;
    if (JSON.stringify(before) === JSON.stringify(now)) return;
    this.#status = Object.freeze(now);
    if (now.state === "closed") {
      this.#listening.abort();
      for (const loop of this.#loops) loop();
    }
    this.dispatchEvent(new Event("statuschange"));
    if (this.#status !== now) return; // a handler closed it
    if (before.state === now.state && now.state !== "waiting") return;
    if (now.state === "open") this.dispatchEvent(new Event("open"));
    // Unlike in an EventSource, 204 is not an error: after one, htmx would ask again.
    const ended = now.state === "closed" && now.reason !== "closed" && now.reason !== "finished";
    if (now.state === "waiting" || ended) {
      this.dispatchEvent(Object.assign(new Event("error"), { response }));
    }
  }

  /** @param {boolean} whenHidden whether to close while the page is hidden */
  #watchPage(whenHidden) {
    const { document } = globalThis;
    const options = { signal: this.#listening.signal };
    const on = (/** @type {EventTarget | undefined} */ target, /** @type {string} */ type,
      /** @type {() => void} */ action) => target?.addEventListener?.(type, action, options);
    const wanted = () => !(whenHidden && document?.hidden);
    const start = () => {
      if (wanted()) this.#feed.start();
      else pause();
    };
    const pause = () => {
      this.#feed.stop();
      this.#become({ ...condition("paused", "hidden"), role: "alone" });
    };
    on(globalThis.window, "pagehide", pause);
    on(document, "freeze", pause);
    on(globalThis.window, "pageshow", start);
    on(document, "resume", start);
    on(document, "visibilitychange", () => {
      if (whenHidden) start();
      this.#feed.check();
    });
    on(globalThis.self, "online", () => {
      this.#feed.online();
      this.#feed.check();
    });
    start();
  }
}
