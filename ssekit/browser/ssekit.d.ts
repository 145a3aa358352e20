export type Entry = {
    type: string;
    data: string;
    id: string;
    marked: boolean;
};
/**
 * One block of a stream. `type` is empty for a block without data; `marked` says whether it has an
 * id of its own, and `id` is the last id either way.
 * @typedef {{ type: string, data: string, id: string, marked: boolean }} Entry
 */
/** Decodes the bytes of one connection (HTML standard, 9.2.6). */
export declare class Decoder {
    #private;
    /** @type {number | undefined} The last `retry:` in milliseconds. */
    retry: number | undefined;
    /** @param {string} [lastEventId] the last id of the connection before this one */
    constructor(lastEventId?: string);
    /**
     * Takes the next bytes and returns the blocks that they complete. Throws a RangeError for an
     * event that is larger than 16 million characters.
     * @param {Uint8Array} chunk
     * @returns {Entry[]}
     */
    feed(chunk: Uint8Array): Entry[];
}
export type State = "connecting" | "open" | "waiting" | "paused" | "closed";
export type Reason = "" | "network" | "ended" | "silence" | "status" | "type" | "size" | "refresh" | "refused" | "finished" | "hidden" | "closed";
export type Role = "alone" | "leader" | "follower" | "joining";
export type Status = {
    /**
     * `waiting`: until `retryAt`; `paused`: the page is hidden or frozen;
     * `closed`: it does not come back
     */
    state: State;
    /**
     * why it is not open: `network`: no connection, or a broken one;
     * `ended`: the server ended it; `silence`: not a byte in time; `status`, `type`: the answer had
     * another status or content type; `size`: an event was too large; `refused`: 401 or 403;
     * `refresh`: that option failed; `finished`: 204, there is nothing more to come; `hidden`: the
     * page; `closed`: by close(), or closeAll() in some tab
     */
    reason: Reason;
    /**
     * the last answer's status, 0 if there was none
     */
    code: number;
    /**
     * when the next try is made, in milliseconds since 1970, else 0
     */
    retryAt: number;
    /**
     * `leader`: its connection serves all tabs; `follower`: another tab's serves
     * it; `joining`: it still has one of its own; `alone`: it shares none, also while paused and once
     * closed
     */
    role: Role;
};
export type Options = {
    /**
     * send cookies to other origins; default false
     */
    withCredentials?: boolean;
    /**
     * default GET
     */
    method?: string;
    /**
     * sent with each request
     */
    headers?: HeadersInit;
    /**
     * sent with each request
     */
    body?: BodyInit;
    /**
     * the position to begin after; default: that of
     * `?last_event_id=` in the address
     */
    lastEventId?: string;
    /**
     * used instead of the global one
     */
    fetch?: typeof fetch;
    /**
     * closes the stream
     */
    signal?: AbortSignal;
    /**
     * milliseconds: the first try to open it again comes at a random time
     * within them, and the bound doubles from try to try; what the server asks for, with `retry:` or
     * `Retry-After`, is waited for before that; default 1000
     */
    delay?: number;
    /**
     * milliseconds: the bound grows no further; default 30000
     */
    maxDelay?: number;
    /**
     * milliseconds without a byte after which the connection is
     * replaced; default 45000, three of ssekit's heartbeats
     */
    silence?: number;
    /**
     * called once after a 401 or 403; returns a new address, new headers, or null to give up
     */
    refresh?: (response: Response) => RefreshedAddress | Promise<RefreshedAddress>;
    /**
     * whether tabs share one connection, where the browser can;
     * a string names the user, so that no tab joins another user's connection; default: true for a
     * GET
     */
    share?: boolean | string;
    /**
     * only new events matter, and they may have no ids: a tab follows the
     * others at once and asks for no earlier events; default false
     */
    live?: boolean;
    /**
     * "close": no connection while the page is hidden;
     * default "keep"
     */
    whenHidden?: "keep" | "close";
    /**
     * handlers of `on` and `values` get data as parsed JSON; default false
     */
    json?: boolean;
    /**
     * the key under which
     * `values` keeps an event's data
     */
    key?: (event: MessageEvent<string>) => string | null | undefined;
};
export type RefreshedAddress = string | {
    url?: string | URL;
    headers?: HeadersInit;
} | null | undefined;
export type OwnEvents = {
    open: Event;
    error: Event & {
        response?: Response;
    };
    reset: Event;
    statuschange: Event;
    "stream-open": Record<string, never>;
    "stream-reset": {
        reason: string;
    };
    "stream-end": {
        channel: string;
        reason: string;
        data: any;
    };
    "stream-remove": {
        channel: string;
        key: string;
    };
    "stream-join": {
        channel: string;
        member: string;
        value: any;
    };
    "stream-leave": {
        channel: string;
        member: string;
        value: any;
    };
};
/**
 * A stream of Server-Sent Events: an EventSource, and what is missing there. `Events` has the type
 * of the data that `on` passes for each type of event.
 *
 * It fires what an EventSource fires, `statuschange` whenever `status` changes, and `reset` after
 * the hub's `stream-reset`: events have been lost, and what follows is the current state.
 *
 * Iterating yields a MessageEvent for each event of any type and ends with the stream, with an
 * error if that failed. Leaving the loop closes the stream.
 * @template {Record<string, any>} [Events=Record<string, any>]
 */
export declare class Stream<Events extends Record<string, any> = Record<string, any>> extends EventTarget {
    #private;
    /** Whether cookies are sent to other origins. @readonly */
    withCredentials: boolean;
    /** @readonly */ static readonly CONNECTING = 0;
    /** @readonly */ static readonly OPEN = 1;
    /** @readonly */ static readonly CLOSED = 2;
    /** @readonly */ readonly CONNECTING = 0;
    /** @readonly */ readonly OPEN = 1;
    /** @readonly */ readonly CLOSED = 2;
    /** @type {((event: Event) => any) | null} */
    onopen: ((event: Event) => any) | null;
    /** @type {((event: MessageEvent<string>) => any) | null} */
    onmessage: ((event: MessageEvent<string>) => any) | null;
    /** @type {((event: Event & { response?: Response }) => any) | null} */
    onerror: ((event: Event & {
        response?: Response;
    }) => any) | null;
    /**
     * The newest data of each key, given the option `key`: follows the opening, updates and removals.
     * @readonly
     * @type {Map<string, any>}
     */
    readonly values: Map<string, any>;
    /**
     * Opens the stream. Throws a SyntaxError if the URL or the last event id is invalid, and a
     * TypeError if no such request can be made.
     * @param {string | URL} url
     * @param {Options} [options]
     */
    constructor(url: string | URL, options?: Options);
    /** The absolute URL. */
    get url(): string;
    /** CONNECTING, OPEN or CLOSED. */
    get readyState(): 0 | 1 | 2;
    /** What the stream is doing, and why. */
    get status(): Status;
    /** The id of the last event, or block with an id, that this tab has had. */
    get lastEventId(): string;
    /** Closes the stream in this tab; other tabs go on. */
    close(): void;
    /** Closes the stream in all tabs that share it: the user has logged out. */
    closeAll(): void;
    /** Reconnects now, in whichever tab has the connection. */
    reconnect(): void;
    /** How many tabs share the connection; 1 if it is not shared. */
    tabs(): Promise<number>;
    /**
     * Calls the handler for each event of a type, with its data and the event; with the event alone
     * for `open`, `error`, `reset` and `statuschange`. Data is text; with the option `json`, and for
     * the hub's own events, parsed JSON. Returns a function that removes the handler.
     * @template {string & keyof (Events & OwnEvents)} Type
     * @param {Type} type
     * @param {(data: (Events & OwnEvents)[Type], event: MessageEvent<string>) => any} handler
     * @returns {() => void}
     */
    on<Type extends string & keyof (Events & OwnEvents)>(type: Type, handler: (data: (Events & OwnEvents)[Type], event: MessageEvent<string>) => any): () => void;
    /**
     * @param {string} type
     * @param {((event: MessageEvent<string>) => any) | EventListenerOrEventListenerObject | null}
     *   listener
     * @param {boolean | AddEventListenerOptions} [options]
     */
    addEventListener(type: string, listener: ((event: MessageEvent<string>) => any) | EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
    /** @returns {AsyncGenerator<MessageEvent<string>, void, void>} */
    [Symbol.asyncIterator](): AsyncGenerator<MessageEvent<string>, void, void>;
}
