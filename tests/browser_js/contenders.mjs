// The clients that situations.py compares, in a page: start(name, url) follows a stream, and each
// event's number goes to window.got. esbuild makes one script of this.

import { fetchEventSource } from "@microsoft/fetch-event-source";
import { EventSource as Polyfill } from "eventsource";
import htmx from "htmx.org";
import * as Turbo from "@hotwired/turbo";
import { Stream } from "../../ssekit/browser/ssekit.js";

window.htmx = htmx;
window.got = [];
window.problems = [];
addEventListener("unhandledrejection", ({ reason }) => problems.push(String(reason)));

const listen = (source) => {
  source.onmessage = ({ data }) => got.push(Number(data));
};

// What Turbo renders has the number in its target.
const number = (text) => Number(/\d+/.exec(text)[0]);

const clients = {
  "ssekit.js": (url) => {
    const refresh = () => `${url}?ticket=2`;
    listen(new Stream(url, { silence: 3000, refresh }));
  },
  EventSource: (url) => listen(new EventSource(url)),
  "fetch-event-source": (url) =>
    fetchEventSource(url, { onmessage: ({ data }) => data && got.push(Number(data)) }).catch((error) =>
      problems.push(String(error)),
    ),
  eventsource: (url) => listen(new Polyfill(url)),
  "htmx with ssekit.js": (url) => {
    htmx.createEventSource = (address) => new Stream(address);
    return clients.htmx(url);
  },
  "Turbo with ssekit.js": (url) => clients.Turbo(url, new Stream(url)),
  htmx: async (url) => {
    await import("htmx-ext-sse");
    document.body.addEventListener("htmx:sseMessage", ({ detail }) => got.push(number(detail.data)));
    const element = document.createElement("div");
    element.setAttribute("hx-ext", "sse");
    element.setAttribute("sse-connect", url);
    element.setAttribute("sse-swap", "message");
    document.body.append(element);
    htmx.process(element);
  },
  Turbo: (url, source = new EventSource(url)) => {
    addEventListener("turbo:before-stream-render", (event) => {
      event.preventDefault();
      got.push(number(event.target.target));
    });
    Turbo.session.connectStreamSource(source);
  },
};

window.start = (name, url) => clients[name](url);
