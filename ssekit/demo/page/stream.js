// One stream of the page, which a visitor starts and stops. ssekit.js does the work: it comes back
// after whatever is not final, and all windows of this page share its connection. This file knows no
// element of the page: it tells `listeners` what happens.

import { Stream } from "./ssekit.js";

const STALLED_AFTER = 4000; // ms without an answer before the page says so

export class LiveStream {
  /**
   * `path`: its address; `headers`: sent with it; `live`: only what comes from now on matters; `types`: the event types to
   * listen for; `listeners`: state(name), event(event), stalled(), text(text) in raw mode.
   */
  constructor({ path, headers = {}, live = false, types = ["message"], listeners }) {
    Object.assign(this, { path, headers, live, types, listeners });
    this.lastEventId = "";
    this.withCredentials = false;
    this.raw = false;
    this.state = "closed";
  }

  /** Starts again where the stream was: from the last id that it has seen. */
  start() {
    this.current?.abort();
    const current = new AbortController();
    this.current = current;
    this.become("connecting");
    if (this.raw) this.read(current);
    else this.open(current.signal);
  }

  /** Ends the stream; `state` is what to show: "closed" or "paused". */
  stop(state = "closed") {
    this.current?.abort();
    this.current = undefined;
    this.source = undefined;
    this.become(state);
  }

  become(state) {
    if (state === this.state) return;
    this.state = state;
    this.listeners.state(state);
  }

  /** Which tab's connection this is, and how many tabs it serves. */
  async sharing() {
    if (!this.source) return "–";
    const { role } = this.source.status;
    const tabs = await this.source.tabs();
    return tabs > 1 ? `${role}, ${tabs} tabs` : role;
  }

  open(signal) {
    const { headers, withCredentials, lastEventId, live } = this;
    const options = { headers, withCredentials, lastEventId, live, signal };
    const source = new Stream(this.path, options);
    this.source = source;
    const stalled = setTimeout(() => this.listeners.stalled?.(), STALLED_AFTER);
    signal.addEventListener("abort", () => clearTimeout(stalled));
    let opened = false;
    source.addEventListener("statuschange", () => {
      if (signal.aborted) return; // stopped: `stop` says what to show
      const { state } = source.status;
      if (state !== "connecting") clearTimeout(stalled);
      opened ||= state === "open";
      if (state === "connecting") this.become(opened ? "reconnecting" : "connecting");
      else this.become(state === "waiting" ? "reconnecting" : state);
    });
    const { origin } = new URL(this.path, document.baseURI);
    const take = (event) => {
      if (event.origin !== origin) return; // not from where this stream was asked for
      if (event.lastEventId) this.lastEventId = event.lastEventId;
      this.listeners.event(event);
    };
    for (const type of this.types) source.addEventListener(type, take);
  }

  /** The same answer read as bytes: comments, retry lines and blank lines included. */
  async read(current) {
    try {
      const url = new URL(this.path, document.baseURI);
      if (this.lastEventId) url.searchParams.set("last_event_id", this.lastEventId);
      const answer = await fetch(url, {
        headers: { ...this.headers, Accept: "text/event-stream" },
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
