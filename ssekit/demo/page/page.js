// The page: starts its panels and the room, asks the server how it is, and gives connections back
// while nobody looks.

import { Panel } from "./panel.js";
import { Room, withToken } from "./room.js";

const ASK_EVERY = 2000; // ms

const element = (id) => document.getElementById(id);
const announce = (text) => (element("announce").textContent = text);

for (const place of document.querySelectorAll("[data-fill=origin]")) {
  place.textContent = new URL(".", document.baseURI).href;
}

const [navigation] = performance.getEntriesByType("navigation");
const protocol = navigation?.nextHopProtocol || "http/1.1";
const limited = protocol.startsWith("http/1");
// Browsers have Web Locks on https and on localhost only.
const shared = "locks" in navigator;

if (typeof ReadableStream === "undefined") {
  element("unsupported").hidden = false;
} else {
  run();
}

function run() {
  const [clock, hello, script] = [...document.querySelectorAll(".panel")].map(
    (article) => new Panel(article, announce),
  );
  const room = new Room(element("room"), announce);
  setUpClock(clock);
  setUpHello(hello);
  setUpScript(script);

  const panels = [clock, hello, script];
  room.start();
  // Without a way to share connections with other windows, only what is asked for is started.
  if (shared || !limited) panels.forEach((panel) => panel.start());
  document.addEventListener("visibilitychange", () => {
    for (const part of [room, ...panels]) part.seen(!document.hidden);
  });

  element("protocol").textContent = explain();
  const ask = async () => {
    if (!document.hidden) {
      const parts = [room, ...panels].map((part) => part.showSharing());
      await Promise.all([showStatus(room, script), showConnections(), ...parts]);
    }
    setTimeout(ask, ASK_EVERY);
  };
  ask();
}

/** The seed's page: JSON of an id and a message, or the text "null" for nothing new. */
function setUpClock(panel) {
  panel.timed = false; // the message says it
  panel.read = (data) => {
    if (data === "null") return undefined;
    const { id, message } = JSON.parse(data);
    return `${id}:${message}`;
  };
  const { interval, credentials } = fields(panel);
  interval.addEventListener("change", () => {
    panel.go(interval.value ? `clock?interval=${interval.value}` : "clock");
  });
  credentials.addEventListener("change", () => {
    panel.stream.withCredentials = credentials.checked;
    if (panel.wanted) panel.start();
  });
}

function setUpHello(panel) {
  element("ask").addEventListener("click", async () => {
    const answer = await fetch("hello", { cache: "no-store" });
    const line = document.createElement("p");
    line.className = "answer";
    line.textContent = `Without the header the answer is: ${await answer.text()}`;
    panel.part("log").append(line);
    panel.part("log").scrollTop = panel.part("log").scrollHeight;
  });
}

function setUpScript(panel) {
  const { script } = fields(panel);
  script.addEventListener("change", () => {
    panel.go(`scripts/${script.value}${script.value === "clock.py" ? "?interval=1" : ""}`);
  });
}

function fields(panel) {
  const named = panel.article.querySelectorAll("[data-part=options] [name]");
  return Object.fromEntries([...named].map((field) => [field.name, field]));
}

function explain() {
  const name = { h2: "HTTP/2", h3: "HTTP/3" }[protocol] ?? protocol;
  if (!limited) return `This page came over ${name}: all its streams share one connection.`;
  const limit =
    "Over HTTP/1.1 a browser opens six connections per host, in all its tabs together, and the " +
    "seventh request stalls. ";
  if (!shared) return `${limit}So the panels here start on demand. HTTP/2 lifts the limit.`;
  return (
    `${limit}So all windows of this page share one connection for each stream, and a hidden one ` +
    "releases its streams. HTTP/2 lifts the limit."
  );
}

/** How many streams of this site all windows of this browser hold: ssekit.js has a lock for each. */
async function showConnections() {
  if (!shared || !limited) return;
  const { held } = await navigator.locks.query();
  const taken = held.filter(({ name }) => name.startsWith("ssekit ")).length;
  element("meter").hidden = false;
  [...document.querySelectorAll("#meter i")].forEach((cell, index) => {
    cell.className = index < taken ? "taken" : "";
  });
  element("meter-label").textContent = `${taken} of 6 connections carry streams`;
}

async function showStatus(room, script) {
  try {
    const answer = await fetch("status", { cache: "no-store", headers: withToken() });
    const status = await answer.json();
    element("open-streams").textContent = status.streams;
    element("open-streams-label").textContent =
      status.streams === 1 ? "stream open on this server" : "streams open on this server";
    const { workers } = status;
    element("workers").textContent = workers === 1 ? "one worker" : `${workers} workers`;
    room.clockAhead = status.time - Date.now();
    room.admit(status.room);
    offer(fields(script).script, status.scripts);
  } catch {
    element("open-streams").textContent = "–";
    element("workers").textContent = "no answer from the server";
  }
}

/** Keeps the menu equal to the files in the folder, and the choice as it is. */
function offer(menu, names) {
  if ([...menu.options].map((option) => option.value).join() === names.join()) return;
  const chosen = menu.value;
  menu.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
}
