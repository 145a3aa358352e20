-- The tables of a log.  Names of channels, keys and members are bytes of UTF-8, whatever the
-- database's encoding and collation are; they may hold a NUL.

-- One row.  What changes with each event is in `tip`.
CREATE TABLE ssekit.log (
    uid uuid NOT NULL,                   -- names this log and its copies
    history bigint NOT NULL,
    capacity bigint NOT NULL,
    max_keys bigint NOT NULL,
    max_age double precision
);

-- One row, which every event changes.
CREATE TABLE ssekit.tip (
    epoch bigint NOT NULL,
    mark text NOT NULL,                  -- the server, timeline and tables that the epoch belongs to
    seq bigint NOT NULL,
    at double precision NOT NULL,        -- the time of the newest entry
    counted bigint NOT NULL,             -- events of all channels that count towards the capacity
    bare bigint NOT NULL,                -- channels of which nothing but `trimmed` is known
    floor bigint NOT NULL,               -- up to where channels that are not known may be trimmed
    turn bytea NOT NULL                  -- the channel that was tidied last
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- Earlier epochs, each with its last seq.
CREATE TABLE ssekit.past (
    epoch bigint PRIMARY KEY,
    last bigint NOT NULL,
    mark text NOT NULL
);

-- `kept` says why an entry is kept, besides for those who follow: 0 not at all (a passing,
-- superseded, trimmed or withdrawn one), 1 an event without a key or a removal, 2 the newest entry
-- of a key, 3 the end of a channel.
CREATE TABLE ssekit.entry (
    seq bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    kept smallint NOT NULL,
    passing boolean NOT NULL,
    at double precision NOT NULL,
    channel bytea NOT NULL,
    key bytea,
    body bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);
CREATE INDEX entry_of_channel ON ssekit.entry (channel, kept, seq);
CREATE UNIQUE INDEX value_of_key ON ssekit.entry (channel, key) WHERE kept = 2;

CREATE TABLE ssekit.channel (
    name bytea PRIMARY KEY,
    trimmed bigint NOT NULL,             -- up to this seq
    last bigint NOT NULL,                -- the seq of the newest entry that is kept, or was
    events bigint NOT NULL,              -- that are kept, removals included
    keys bigint NOT NULL,
    ending bigint,                       -- the seq of its end
    ended double precision NOT NULL,     -- the time of its end
    reason text,
    producer text,
    produced boolean NOT NULL,           -- also when its producer has finished, until it is reopened
    -- What follows is worked out from the rest by `save`.
    counted bigint NOT NULL,             -- its events that count towards the capacity
    length bigint NOT NULL,              -- the same, in steps, where channels are compared
    quiet_since bigint NOT NULL,         -- of channels of one length, the least gives up first
    is_given_up boolean NOT NULL,        -- whether it may give up all of its events
    bare boolean NOT NULL                -- whether nothing is known of it but `trimmed`
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);
CREATE INDEX longest ON ssekit.channel (length DESC, quiet_since) WHERE length > 0;
CREATE INDEX finished_first ON ssekit.channel (ending) WHERE is_given_up;
CREATE INDEX trimmed_first ON ssekit.channel (trimmed) WHERE bare;

CREATE TABLE ssekit.lease (
    holder text PRIMARY KEY,
    beats bigint NOT NULL                -- -1 for one that was ended
);

-- A channel that a lease produces (no member), or a member that it has present in one.
CREATE TABLE ssekit.held (
    channel bytea NOT NULL,
    is_member boolean NOT NULL,
    member bytea NOT NULL,
    holder text NOT NULL,
    PRIMARY KEY (channel, is_member, member, holder)
);
CREATE INDEX held_by ON ssekit.held (holder);

-- Events of transactions that publish: they have no place in the log until they are committed.
CREATE TABLE ssekit.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel bytea NOT NULL,
    key bytea,
    passing boolean NOT NULL,
    body bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Which process looks after the outbox.  What it holds may be lost in a crash of the server.
CREATE UNLOGGED TABLE ssekit.watch (
    one boolean PRIMARY KEY,
    holder text NOT NULL,
    until double precision NOT NULL
) WITH (fillfactor = 10);

-- Counts the turns of the others to ask whether it still does, each so many seconds after the one
-- before.  A row would leave an old version at each turn while a transaction is open for hours.
CREATE SEQUENCE ssekit.turn OWNED BY ssekit.watch.one;
