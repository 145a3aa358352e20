// The room: one hub channel. What is sent goes by POST; what is shown comes by the stream alone,
// one's own messages too, so that the log is what the hub delivered and nothing else. Who is here
// comes by it too: this page is, by the name in its form, if it may speak.

import { appendTo, timeOf } from "./panel.js";
import { LiveStream } from "./stream.js";

const KEPT = 500;
const NAMES = 20; // of those who are here
const AWAY = 5000; // ms
const NAME = "ssekit name"; // under which it is kept
const UNDER_WAY = new Set(["connecting", "open", "reconnecting"]);
const ANIMALS = ["otter", "heron", "lynx", "wren", "newt", "marten", "plover", "ibex"];
const COLOURS = ["amber", "jade", "slate", "russet", "indigo", "ivory", "copper", "teal"];

export class Room {
  constructor(section, announce) {
    this.section = section;
    this.announce = announce;
    this.log = section.querySelector("[data-part=log]");
    this.form = section.querySelector("form");
    this.lostAt = undefined;
    this.joinedAgain = undefined;
    this.here = new Map(); // by member, the name
    this.form.elements.name.value = ownName();
    this.stream = new LiveStream({
      path: this.address(),
      headers: withToken({ "X-Room-Visitor": kept("ssekit visitor", randomId) }),
      types: ["message", "stream-open", "stream-reset", "stream-join", "stream-leave"],
      listeners: {
        state: (state) => this.showState(state),
        event: (event) => this.take(event),
        stalled: () => this.note("No answer yet. Are all connections of this browser in use?"),
      },
    });
    this.form.elements.name.addEventListener("change", () => this.rename());
    addEventListener("storage", ({ key, newValue }) => {
      if (key !== NAME || !newValue) return;
      // Windows of one browser are one visitor, and share a connection as long as they agree.
      this.form.elements.name.value = newValue;
      this.rename();
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.away = section.querySelector("#away");
    this.away.addEventListener("click", () => this.hangUp());
  }

  start() {
    this.stream.start();
  }

  address() {
    return `room/events?name=${encodeURIComponent(this.form.elements.name.value)}`;
  }

  /** Comes back at once, with another name for the others. */
  rename() {
    remember(this.form.elements.name.value);
    this.stream.path = this.address();
    if (UNDER_WAY.has(this.stream.state)) this.stream.start();
  }

  seen(visible) {
    if (this.away.disabled) return; // it comes back by itself
    if (visible) this.stream.start();
    else this.stream.stop("paused");
  }

  /** Opens or closes the form, as the server says whether it takes messages. */
  admit(open) {
    this.form.hidden = !open;
    this.section.querySelector("#room-closed").hidden = open;
  }

  hangUp() {
    this.away.disabled = true;
    this.stream.stop("away");
    setTimeout(() => {
      this.away.disabled = false;
      if (document.hidden) this.stream.stop("paused");
      else this.stream.start();
    }, AWAY);
  }

  showState(state) {
    this.section.dataset.state = state;
    const label = this.section.querySelector("[data-part=state]");
    label.dataset.state = state;
    label.textContent = state;
    if (state === "open") this.back();
    else if (state !== "connecting" && !this.lostAt && this.stream.lastEventId) {
      this.lostAt = Date.now();
      this.note(REASONS[state] ?? "Connection lost.", "lost");
    }
  }

  async showSharing() {
    this.section.querySelector("[data-part=sharing]").textContent = await this.stream.sharing();
  }

  back() {
    if (!this.lostAt) return;
    const seconds = ((Date.now() - this.lostAt) / 1000).toFixed(1);
    this.joinedAgain = { at: Date.now(), missed: 0, text: `Back after ${seconds} s` };
    this.joinedAgain.line = this.note(`${this.joinedAgain.text}: nothing missed.`, "back");
    this.lostAt = undefined;
  }

  take(event) {
    if (event.type === "stream-open") {
      this.note(`Joined at id ${event.lastEventId}.`, "back");
    } else if (event.type === "stream-reset") {
      this.note("History lost: the server no longer has what came in between.", "reset");
      this.announce("Room: some messages are lost");
      this.here.clear();
      this.showHere();
    } else if (event.type === "stream-join") {
      const { member, value } = JSON.parse(event.data);
      this.here.set(member, String(value?.name ?? member));
      this.showHere();
    } else if (event.type === "stream-leave") {
      this.here.delete(JSON.parse(event.data).member);
      this.showHere();
    } else {
      this.show(event);
    }
    this.section.querySelector("[data-part=last-id]").textContent = event.lastEventId || "none";
  }

  showHere() {
    const names = [...this.here.values()].sort();
    const more = names.splice(NAMES).length;
    const text = names.join(", ") + (more ? ` and ${more} more` : "");
    this.section.querySelector("[data-part=here]").textContent = text || "nobody who may speak";
  }

  show(event) {
    const message = parse(event.data);
    const line = document.createElement("p");
    line.className = "message";
    line.dataset.id = event.lastEventId;
    if (message.name === this.form.elements.name.value) line.classList.add("own");
    const name = document.createElement("b");
    name.textContent = message.name;
    const text = document.createElement("span");
    text.textContent = message.text;
    line.append(name, text, timeOf(message.time ? new Date(message.time) : new Date()));
    if (this.wasMissed(message)) line.classList.add("missed");
    this.append(line);
  }

  /** Whether this is one of the messages sent while this page was away. */
  wasMissed(message) {
    const joined = this.joinedAgain;
    if (!joined || !message.time) return false;
    if (message.time - (this.clockAhead ?? 0) > joined.at) return false;
    joined.missed += 1;
    const many = joined.missed === 1 ? "1 message" : `${joined.missed} messages`;
    joined.line.textContent = `${joined.text}: caught up on ${many}.`;
    return true;
  }

  note(text, kind = "") {
    const line = document.createElement("p");
    line.className = `note ${kind}`;
    line.textContent = text;
    this.append(line);
    return line;
  }

  append(line) {
    this.log.querySelector(".empty")?.remove();
    appendTo(this.log, line, KEPT);
  }

  async send() {
    const { name, text } = this.form.elements;
    const problem = this.form.querySelector("#problem");
    problem.textContent = "";
    remember(name.value);
    try {
      const answer = await fetch("room", {
        method: "POST",
        headers: withToken({ "Content-Type": "application/json" }),
        body: JSON.stringify({ name: name.value, text: text.value }),
      });
      if (!answer.ok) throw new Error((await answer.json()).error);
      text.value = "";
    } catch (error) {
      problem.textContent = `Not sent: ${error.message}`;
    }
    text.focus();
  }
}

/** The headers with the token that the server has put into this page; it says who may send. */
export function withToken(headers = {}) {
  const token = document.querySelector("meta[name=room-token]").content;
  return { ...headers, "X-Room-Token": token };
}

const REASONS = {
  away: "Hung up. What is said now comes later.",
  paused: "Paused while this tab is hidden.",
};

/** Anybody may publish to the channel: what is not a message of this page is shown as text. */
function parse(data) {
  try {
    const { name, text, time } = JSON.parse(data);
    if (typeof name === "string" && typeof text === "string") {
      return { name, text, time: Number.isSafeInteger(time) ? time : undefined };
    }
  } catch {
    // Not JSON: shown as it is, below.
  }
  return { name: "", text: data };
}

function ownName() {
  const any = (words) => words[Math.floor(Math.random() * words.length)];
  return kept(NAME, () => `${any(COLOURS)} ${any(ANIMALS)}`);
}

function randomId() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
}

function remember(name) {
  if (name) kept(NAME, () => name, true);
}

/** What was kept for the next visit, where the browser lets a page keep anything; else made now. */
function kept(key, make, anew = false) {
  try {
    const found = anew ? null : localStorage.getItem(key);
    if (found !== null) return found;
    const made = make();
    localStorage.setItem(key, made);
    return made;
  } catch {
    return make();
  }
}
