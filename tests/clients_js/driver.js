// node driver.js CLIENT SECONDS <urls.json >events.json

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import './follow.js'

// What a program writes around eventsource-parser, which only parses.
async function parser() {
  const { createParser } = await import('eventsource-parser')
  return (url, seen) => {
    const abort = new AbortController()
    let last = ''
    const connect = async () => {
      const headers = { Accept: 'text/event-stream', ...(last && { 'Last-Event-ID': last }) }
      const answer = await fetch(url, { headers, signal: abort.signal })
      const text = new TextDecoder()
      const { feed } = createParser({
        onEvent({ event, data, id }) {
          last = id ?? last
          seen([event ?? 'message', data, last])
        },
      })
      for await (const chunk of answer.body) feed(text.decode(chunk, { stream: true }))
    }
    const run = async () => {
      while (!abort.signal.aborted) {
        await connect().catch(() => {}) // a cut connection is what this is about
        await sleep(20)
      }
    }
    run()
    return () => abort.abort()
  }
}

async function fetchEventSource() {
  globalThis.window = globalThis
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }
  const library = await import('@microsoft/fetch-event-source')
  return (url, seen) => {
    const abort = new AbortController()
    library.fetchEventSource(url, {
      signal: abort.signal,
      openWhenHidden: true,
      onmessage: ({ event, data, id }) => seen([event || 'message', data, id]),
      onclose() {
        throw new Error('its way to say: connect again')
      },
      onerror() {},
    })
    return () => abort.abort()
  }
}

const clients = {
  'eventsource-4': async () => opener((await import('eventsource-4')).EventSource),
  'eventsource-5': async () => opener((await import('eventsource-5')).EventSource),
  'eventsource-parser': parser,
  'fetch-event-source': fetchEventSource,
}
const [, , name, seconds] = process.argv
const urls = JSON.parse(readFileSync(0, 'utf8'))
console.log(JSON.stringify(await follow(await clients[name](), urls, Number(seconds))))
process.exit(0)
