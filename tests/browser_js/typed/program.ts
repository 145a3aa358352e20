// What a program in TypeScript may write, and what it may not.

import { Decoder, Stream } from "../../../ssekit/browser/ssekit.js";
import type { Options, Status } from "../../../ssekit/browser/ssekit.js";

const options: Options = {
  json: true,
  share: "ada",
  refresh: async (response) => (response.status === 401 ? "/events?ticket=2" : null),
  key: ({ lastEventId }) => lastEventId || null,
};
const stream = new Stream<{ price: { bid: number } }>(new URL("https://site.example/"), options);
const end: () => void = stream.on("price", ({ bid }, { lastEventId }) => bid.toFixed() + lastEventId);
stream.on("stream-remove", ({ channel, key }) => channel + key);
stream.on("error", ({ response }) => response?.text());
stream.addEventListener("anything", (event: MessageEvent<string>) => event.data.length);
stream.onmessage = ({ data }) => data.trim();
const status: Status = stream.status;
const time: number = status.retryAt;
for await (const { type, data } of stream) console.log(type, data.length, time, end);

// @ts-expect-error no such state
if (status.state === "opening") end();
// @ts-expect-error bids are numbers
stream.on("price", ({ bid }) => bid.trim());
// @ts-expect-error no such event
stream.on("prices", () => {});
// @ts-expect-error no such option
new Stream("/events", { retry: 3 });
// @ts-expect-error it is read only
stream.readyState = 2;

// An EventSource's place can be taken.
const source: Pick<EventSource, "url" | "readyState" | "withCredentials" | "onopen" | "onerror" | "close"> =
  new Stream("/events");
source.close();

const types: string[] = new Decoder("1").feed(new Uint8Array()).map(({ type }) => type);
console.log(types);
export {};
