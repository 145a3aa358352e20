// Follows many streams at once until each has sent the data "end"; runs in node and in a browser.
// open(url, seen) starts a client, which calls seen([type, data, id]), and returns what closes it.

globalThis.follow = async (open, urls, seconds) => {
  const streams = urls.map((url) => {
    const events = []
    const ended = new Promise((resolve) => {
      const close = open(url, (event) => {
        events.push(event)
        if (event[1] === 'end') {
          close()
          resolve()
        }
      })
    })
    return { events, ended }
  })
  const late = new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  await Promise.race([late, Promise.all(streams.map(({ ended }) => ended))])
  return streams.map(({ events }) => events)
}

globalThis.opener = (EventSource) => (url, seen) => {
  const source = new EventSource(url)
  for (const type of ['message', 'tick']) {
    source.addEventListener(type, (event) => seen([event.type, event.data, event.lastEventId]))
  }
  return () => source.close()
}
