// The connections that a browser has for this host, shared fairly by all tabs of this page.
//
// Over HTTP/1.1 a browser opens six connections per host, in all its tabs together; the seventh
// request stalls without a word. So each stream first takes one of five places, which are Web
// Locks: the browser itself passes them on when a stream stops or its tab goes. Three are for
// panels and two for the room; the sixth connection stays free for requests. Over HTTP/2 all
// streams share one connection and there is nothing to take.

const PANELS = ["panel-1", "panel-2", "panel-3"].map((name) => `ssekit ${name}`);
const ROOMS = ["room-1", "room-2"].map((name) => `ssekit ${name}`);
const PLACES = { panel: PANELS, room: [...ROOMS, ...PANELS] };

const [navigation] = performance.getEntriesByType("navigation");
export const protocol = navigation?.nextHopProtocol || "http/1.1";
export const limited = protocol.startsWith("http/1");
// Browsers have Web Locks on https and on localhost only.
export const shared = limited && "locks" in navigator;

/**
 * Waits for a place and returns the function that gives it back, or null if `signal` comes first.
 */
export function takePlace(kind, signal) {
  if (!shared) return Promise.resolve(() => {});
  return new Promise((resolve) => {
    const others = new AbortController();
    let taken = false;
    signal.addEventListener("abort", () => {
      others.abort();
      resolve(null);
    });
    for (const name of PLACES[kind]) {
      navigator.locks
        .request(name, { signal: others.signal }, () => {
          // Two places may be granted in one turn: the second goes straight back.
          if (taken || signal.aborted) return undefined;
          taken = true;
          others.abort();
          return new Promise((release) => {
            resolve(release);
            signal.addEventListener("abort", release);
          });
        })
        .catch((error) => {
          if (error.name !== "AbortError") throw error;
        });
    }
  });
}

/** How many streams of this page all tabs of this browser hold. */
export async function placesTaken() {
  const { held } = await navigator.locks.query();
  return held.filter((lock) => lock.name.startsWith("ssekit ")).length;
}
