// One stream, from "start" to "stop": an EventSource and what it does not tell by itself.
//
// EventSource reconnects after a lost connection, but gives up for good after an answer other
// than 200, as a proxy sends while the server behind it restarts. Here such a stream is opened
// again, later and later, with the last id in the query, since a new EventSource cannot send the
// header. This file knows no element of the page: it tells `listeners` what happens.

import { takePlace } from "./connections.js";

const STALLED_AFTER = 4000; // ms without an answer before the page says so
const LONGEST_PAUSE = 30000; // ms between attempts

export class LiveStream {
  /**
   * `path`: its address; `kind`: whose place it takes ("panel" or "room"); `types`: the event
   * types to listen for; `listeners`: state(name), event(event), stalled(), text(text) in raw mode.
   */
  constructor({ path, kind, types = ["message"], listeners }) {
    Object.assign(this, { path, kind, types, listeners });
    this.lastEventId = "";
    this.withCredentials = false;
    this.raw = false;
    this.state = "closed";
    this.attempts = 0;
  }

  get running() {
    return Boolean(this.current);
  }

  /** Starts again where the stream was: from the last id that it has seen. */
  async start() {
    this.current?.abort();
    const current = new AbortController();
    this.current = current;
    this.become("waiting");
    if (!(await takePlace(this.kind, current.signal)) || current.signal.aborted) return;
    this.become("connecting");
    if (this.raw) this.read(current);
    else this.open(current);
  }

  /** Ends the stream; `state` is what to show: "closed" or "paused". */
  stop(state = "closed") {
    this.current?.abort();
    this.current = undefined;
    this.become(state);
  }

  become(state) {
    if (state === this.state) return;
    this.state = state;
    this.listeners.state(state);
  }

  address() {
    const url = new URL(this.path, document.baseURI);
    if (this.lastEventId) url.searchParams.set("last_event_id", this.lastEventId);
    return url;
  }

  open(current) {
    const url = this.address();
    const source = new EventSource(url, { withCredentials: this.withCredentials });
    const stalled = setTimeout(() => this.listeners.stalled?.(), STALLED_AFTER);
    let again;
    current.signal.addEventListener("abort", () => {
      source.close();
      clearTimeout(stalled);
      clearTimeout(again);
    });

    source.onopen = () => {
      clearTimeout(stalled);
      this.attempts = 0;
      this.become("open");
    };
    source.onerror = () => {
      clearTimeout(stalled);
      this.become("reconnecting");
      if (source.readyState !== EventSource.CLOSED) return; // it comes back by itself
      this.attempts += 1;
      const pause = Math.min(LONGEST_PAUSE, 500 * 2 ** this.attempts) * (0.5 + Math.random() / 2);
      again = setTimeout(() => this.open(current), pause);
    };
    const take = (event) => {
      if (event.origin !== url.origin) return; // not from where this stream was asked for
      if (event.lastEventId) this.lastEventId = event.lastEventId;
      this.listeners.event(event);
    };
    for (const type of this.types) source.addEventListener(type, take);
  }

  /** The same answer read as bytes: comments, retry lines and blank lines included. */
  async read(current) {
    try {
      const answer = await fetch(this.address(), {
        headers: { Accept: "text/event-stream" },
        credentials: this.withCredentials ? "include" : "same-origin",
        cache: "no-store",
        signal: current.signal,
      });
      this.become("open");
      this.listeners.text(`HTTP ${answer.status}\n${headerLines(answer)}\n\n`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        this.listeners.text(value);
      }
      this.listeners.text("\n(the answer has ended)\n");
    } catch (error) {
      if (current.signal.aborted) return;
      this.listeners.text(`\n(the connection is lost: ${error.message})\n`);
    }
    if (this.current === current) this.stop();
  }
}

function headerLines(answer) {
  return [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
}
