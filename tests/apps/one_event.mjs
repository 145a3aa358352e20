// node one_event.mjs URL: prints the first event's data and closes the stream.

import { Stream } from "../../ssekit/browser/ssekit.js";

const source = new Stream(process.argv[2]);
source.onmessage = ({ data }) => {
  console.log(data);
  source.close();
};
