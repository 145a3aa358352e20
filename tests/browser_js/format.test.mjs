// The format of the HTML standard, section 9.2: the standard's own examples, and the questions that
// the web platform's tests and the test suites of other clients ask. Each case is read whole, then
// cut at every byte, then byte by byte.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Decoder } from "../../ssekit/browser/ssekit.js";

const message = (data, id = "") => ["message", data, id];

// Name, bytes, and the events as [type, data, last event id].
const CASES = [
  ["the standard's example of three blocks",
    "data: This is the first message.\n\ndata: This is the second message, it\n" +
      "data: has two lines.\n\ndata: This is the third message.\n\n",
    [message("This is the first message."),
      message("This is the second message, it\nhas two lines."),
      message("This is the third message.")]],
  ["the standard's example of named events",
    "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
    [["add", "73857293", ""], ["remove", "2153", ""], ["add", "113411", ""]]],
  ["the standard's example of a stock ticker", "data: YHOO\ndata: +2\ndata: 10\n\n",
    [message("YHOO\n+2\n10")]],
  ["the standard's example with comments and ids",
    ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
    [message("first event", "1"), message("second event"), message(" third event")]],
  ["the standard's example of empty data", "data\n\ndata\ndata\n\ndata:",
    [message(""), message("\n")]],
  ["the standard's example of one optional space", "data:test\n\ndata: test\n\n",
    [message("test"), message("test")]],
  ["lines end in LF", "data: 1\ndata: 2\n\n", [message("1\n2")]],
  ["lines end in CR", "data: 1\rdata: 2\r\r", [message("1\n2")]],
  ["lines end in CRLF", "data: 1\r\ndata: 2\r\n\r\n", [message("1\n2")]],
  ["line ends are mixed", "data: 1\r\ndata: 2\ndata: 3\rdata: 4\n\r\ndata: 5\r\r\n",
    [message("1\n2\n3\n4"), message("5")]],
  ["LF CR is two line ends", "data: 1\n\rdata: 2\r\n\n", [message("1"), message("2")]],
  ["no other character ends a line",
    "data: a\u000bb\u000cc\u0085d\u2028e\u2029f\u001cg\n\n",
    [message("a\u000bb\u000cc\u0085d\u2028e\u2029f\u001cg")]],
  ["one byte order mark is removed", "\ufeffdata: 1\n\n", [message("1")]],
  ["a second byte order mark is part of a name", "\ufeff\ufeffdata: 1\n\ndata: 2\n\n", [message("2")]],
  ["a byte order mark later is part of a name", "data: 1\n\n\ufeffdata: 2\n\ndata: 3\n\n",
    [message("1"), message("3")]],
  ["comments are ignored", ":\n: data: 1\n:data: 2\r: x\rdata: 3\n:\n\n", [message("3")]],
  ["a long comment is ignored", `:${"x".repeat(5000)}\ndata: 1\n\n`, [message("1")]],
  ["an event at the end without a blank line is dropped", "data: 1\n\ndata: 2\n", [message("1")]],
  ["an event at the end without a line end is dropped", "data: 1\n\ndata: 2", [message("1")]],
  ["names are case-sensitive", "DATA: 1\nData: 2\ndata: 3\nID: 4\nEvent: x\n\n", [message("3")]],
  ["unknown names are ignored", "justsomething\nfoo: bar\n data: 1\ndata : 2\ndata: 3\n\n",
    [message("3")]],
  ["only the first colon counts", "data:a:b: c\n\n", [message("a:b: c")]],
  ["a tab after the colon stays", "data:\ttest\ndata: \tx\n\n", [message("\ttest\n\tx")]],
  ["spaces at the end stay", "data: x  \n\n", [message("x  ")]],
  ["a NUL in data stays", "data: a\0b\n\n", [message("a\0b")]],
  ["text is UTF-8", "data: ok…\u{1f600}é\n\n", [message("ok…\u{1f600}é")]],
  ["a wrong byte is replaced", Buffer.from("data: a\xffb\n\n", "latin1"), [message("a\ufffdb")]],
  ["an event field without a value means message", "event: a\nevent\ndata: 1\n\nevent:\ndata: 2\n\n",
    [message("1"), message("2")]],
  ["the last event field wins", "event: a\nevent: b\ndata: 1\n\n", [["b", "1", ""]]],
  ["a name alone dispatches nothing and is forgotten", "event: a\n\ndata: 1\n\n", [message("1")]],
  ["an id stays for later events", "id: 1\ndata: a\n\ndata: b\n\n", [message("a", "1"), message("b", "1")]],
  ["an id is taken at the blank line", "data: a\n\nid: 2\ndata: b\n", [message("a")]],
  ["a block with only an id sets it", "id: 7\n\ndata: a\n\n", [["", "", "7"], message("a", "7")]],
  ["an empty id resets it", "id: 1\ndata: a\n\nid:\ndata: b\n\nid\ndata: c\n\n",
    [message("a", "1"), message("b"), message("c")]],
  ["an id with a NUL is ignored", "id: 1\ndata: a\n\nid: 2\0\ndata: b\n\nid: \0\n\n",
    [message("a", "1"), message("b", "1")]],
  ["an id may be any text", "id: …é \u{1f600}\ndata: a\n\n", [message("a", "…é \u{1f600}")]],
  ["an id's own spaces stay", "id:  1 \ndata: a\n\n", [message("a", " 1 ")]],
  ["data of many lines", `${"data: x\n".repeat(300)}\n`, [message(Array(300).fill("x").join("\n"))]],
  ["data that ends in an empty line", "data: 1\ndata:\n\ndata:\ndata: 2\n\n",
    [message("1\n"), message("\n2")]],
  ["blank lines alone", "\n\n\r\r\r\n\r\n\ndata: 1\n\n\n\n", [message("1")]],
  ["nothing", "", []],
];

const RETRIES = [
  ["retry: 1000\n", 1000],
  ["retry:1000\n\n", 1000],
  ["retry: 0\n", 0],
  ["retry: 03000\n", 3000],
  ["retry: 1000x\n", undefined],
  ["retry: +5\n", undefined],
  ["retry: -5\n", undefined],
  ["retry: 1.5\n", undefined],
  ["retry: 1_000\n", undefined],
  ["retry: 1e3\n", undefined],
  ["retry:  7\n", undefined],
  ["retry: \u0661\u0662\n", undefined],
  ["retry:\n", undefined],
  ["retry\n", undefined],
  ["retry: 3\nretry: x\n", 3],
  ["retry: 3\nretry: 4\n", 4],
];

function decode(chunks, last) {
  const decoder = new Decoder(last);
  return chunks.flatMap((chunk) => decoder.feed(chunk)).map(({ type, data, id }) => [type, data, id]);
}

for (const [name, text, events] of CASES) {
  test(name, () => {
    const bytes = new Uint8Array(Buffer.from(text));
    assert.deepEqual(decode([bytes]), events);
    assert.deepEqual(decode([...bytes].map((byte) => Uint8Array.of(byte))), events);
    for (let cut = 0; cut <= bytes.length; cut++) {
      const parts = [bytes.subarray(0, cut), new Uint8Array(0), bytes.subarray(cut)];
      assert.deepEqual(decode(parts), events, `cut at ${cut}`);
    }
  });
}

for (const [text, milliseconds] of RETRIES) {
  test(`${JSON.stringify(text)} sets the reconnection time ${milliseconds}`, () => {
    for (let cut = 0; cut <= text.length; cut++) {
      const decoder = new Decoder();
      decoder.feed(Buffer.from(text.slice(0, cut)));
      decoder.feed(Buffer.from(text.slice(cut)));
      assert.equal(decoder.retry, milliseconds);
    }
  });
}

test("a CR at the end of a chunk ends the line at once", () => {
  const decoder = new Decoder();
  assert.equal(decoder.feed(Buffer.from("data: 1\r\r")).length, 1);
  assert.equal(decoder.feed(Buffer.from("\ndata: 2\r\n\r\n")).length, 1);
});

test("a new connection goes on with the last id, and an empty id forgets it", () => {
  assert.deepEqual(decode([Buffer.from("data: a\n\n")], "41"), [message("a", "41")]);
  assert.deepEqual(decode([Buffer.from("id:\n\ndata: a\n\n")], "41"), [["", "", ""], message("a")]);
});

test("each connection may begin with a byte order mark", () => {
  const bytes = Buffer.from("\ufeffdata: 1\n\n");
  assert.deepEqual(decode([bytes]), decode([bytes]));
});

test("an event without an end is refused before it fills the memory", () => {
  const chunk = Buffer.alloc(2 ** 20, "x");
  for (const start of ["data: ", "", ":"]) {
    const decoder = new Decoder();
    decoder.feed(Buffer.from(start));
    assert.throws(() => {
      for (let count = 0; count < 20; count++) decoder.feed(chunk);
    }, RangeError);
  }
  const decoder = new Decoder();
  assert.throws(() => {
    for (let count = 0; count < 20; count++) decoder.feed(Buffer.concat([Buffer.from("data: "), chunk, Buffer.from("\n")]));
  }, RangeError);
});
