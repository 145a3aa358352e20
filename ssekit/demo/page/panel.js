// A panel: one stream and its controls. Each is an <article data-path> of the page, completed
// from <template id="panel">.

import { LiveStream } from "./stream.js";

const KEPT = 100; // lines of a log that are kept
const WINDOW = 60000; // ms shown on the wire; page.css moves the marks at the same speed

export class Panel {
  constructor(article, announce) {
    this.article = article;
    this.name = article.querySelector("h3").textContent;
    this.announce = announce;
    this.complete(document.getElementById("panel").content);
    this.count = 0;
    this.reconnects = 0;
    this.timed = true; // each line of the log begins with the time
    this.wanted = false; // started by the visitor or the page, and not stopped by the visitor
    this.stream = new LiveStream({
      path: article.dataset.path,
      live: true,
      listeners: {
        state: (state) => this.showState(state),
        event: (event) => this.showEvent(event),
        text: (text) => this.showText(text),
        stalled: () => this.hint("No answer yet. Are all connections of this browser in use?"),
      },
    });
    this.part("toggle").addEventListener("click", () => (this.wanted ? this.stop() : this.start()));
    this.part("raw").addEventListener("change", (event) => {
      this.stream.raw = event.target.checked;
      this.part("log").replaceChildren();
      this.start();
    });
    this.showAddress();
  }

  part(name) {
    return this.article.querySelector(`[data-part="${name}"]`);
  }

  complete(template) {
    const parts = template.cloneNode(true);
    const find = (name) => parts.querySelector(`[data-part="${name}"]`);
    const header = this.article.querySelector("header");
    const figures = parts.querySelector(".figures");
    const controls = find("controls");
    controls.append(this.part("options"));
    header.querySelector("h3").after(find("state"), find("address"));
    this.part("log").before(find("wire"), figures, find("hint"));
    this.part("log").after(controls);
  }

  /** Reads another address from now on: `path` is relative to the page. */
  go(path) {
    this.stream.path = path;
    this.stream.lastEventId = "";
    this.showAddress();
    if (this.wanted) this.start();
  }

  start() {
    this.wanted = true;
    this.part("toggle").textContent = "Stop";
    if (document.hidden) this.stream.stop("paused");
    else this.stream.start();
  }

  stop() {
    this.wanted = false;
    this.part("toggle").textContent = "Start";
    this.stream.stop();
  }

  /** A hidden page gives its connections to those that are seen. */
  seen(visible) {
    if (!this.wanted) return;
    if (visible) this.stream.start();
    else this.stream.stop("paused");
  }

  showAddress() {
    const address = this.part("address");
    address.href = this.stream.path;
    address.textContent = `/${this.stream.path}`;
  }

  showState(state) {
    const before = this.part("state").dataset.state;
    this.part("state").dataset.state = state;
    this.part("state").textContent = state;
    this.hint("");
    this.showSharing();
    if (state === "open") this.mark("opened");
    if (before === "open") this.mark("lost");
    if (state === "reconnecting" && before === "open") {
      this.reconnects += 1;
      this.part("reconnects").textContent = this.reconnects;
      this.announce(`${this.name}: connection lost, reconnecting`);
    }
    if (state === "open" && before === "reconnecting") this.announce(`${this.name}: open again`);
    if (state === "closed") this.wanted = false;
    this.part("toggle").textContent = this.wanted ? "Stop" : "Start";
  }

  async showSharing() {
    this.part("sharing").textContent = await this.stream.sharing();
  }

  hint(text) {
    this.part("hint").hidden = !text;
    this.part("hint").textContent = text;
  }

  showEvent(event) {
    this.count += 1;
    this.part("events").textContent = this.count;
    this.part("last-id").textContent = event.lastEventId || "none";
    this.mark("event");
    const text = this.read(event.data);
    if (text === undefined) return;
    const line = document.createElement("p");
    const said = document.createElement("span");
    said.textContent = text;
    if (this.timed) line.append(timeOf(new Date()));
    line.append(said);
    appendTo(this.part("log"), line, KEPT);
  }

  /** What to show for an event's data; undefined for nothing. A panel may say otherwise. */
  read(data) {
    return data;
  }

  showText(text) {
    this.mark("event");
    const bytes = document.createElement("span");
    bytes.className = "bytes";
    bytes.textContent = text;
    appendTo(this.part("log"), bytes, KEPT);
  }

  /** A mark on the wire, which moves to the left and is gone after a minute. */
  mark(kind) {
    const mark = document.createElement("i");
    mark.className = kind;
    this.part("wire").append(mark);
    setTimeout(() => mark.remove(), WINDOW);
  }
}

/** A <time> that says the hour, minute and second. */
export function timeOf(date) {
  const time = document.createElement("time");
  time.dateTime = date.toISOString();
  time.textContent = date.toLocaleTimeString([], { hour12: false });
  return time;
}

/** Appends to a log, forgets its oldest lines, and follows the end unless the reader has left it. */
export function appendTo(log, element, kept) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(element);
  while (log.childElementCount > kept) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}
