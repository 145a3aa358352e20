-- What changes a log.  One transaction at a time writes: it takes the lock first, and as each
-- statement of a volatile function has a snapshot of its own under READ COMMITTED, it then sees all
-- that was committed before.  So seqs have no gaps and become visible in their order.

-- Which server, timeline, database and tables these are.  After a restart, a failover or a restored
-- backup something of it differs, and the newest entries may have been forgotten.
CREATE FUNCTION ssekit.mark() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN extract(epoch FROM pg_postmaster_start_time())::double precision || '/'
        || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) || '/'
        || pg_relation_filepath('ssekit.tip');  -- has the database in it
END $$;

-- Take the lock.
CREATE FUNCTION ssekit.lock() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'ssekit writes in READ COMMITTED only' USING ERRCODE = 'SK002';
    END IF;
    IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM pg_advisory_xact_lock(1936942955, 'ssekit.log'::regclass::oid::integer);
END $$;

-- Return what the log keeps.
CREATE FUNCTION ssekit.rules_of_log(bounds double precision[]) RETURNS ssekit.rules
LANGUAGE plpgsql AS $$
DECLARE
    r ssekit.rules;
BEGIN
    SELECT history, capacity, max_keys, max_age, bounds[1], bounds[2], bounds[3], bounds[4],
        bounds[5], bounds[6] INTO r FROM ssekit.log;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the log has lost its row' USING ERRCODE = 'SK001';
    END IF;
    RETURN r;
END $$;

-- Take the lock, and put what transactions have published into the log.  What is more than one
-- transaction should do is refused: it has to be sequenced first.
CREATE FUNCTION ssekit.begin_writing(bounds double precision[]) RETURNS ssekit.rules
LANGUAGE plpgsql AS $$
DECLARE
    r ssekit.rules;
BEGIN
    PERFORM ssekit.lock();
    r := ssekit.rules_of_log(bounds);
    IF EXISTS (SELECT FROM ssekit.outbox) AND ssekit.drain(r) THEN
        RAISE EXCEPTION 'many events of transactions have no place in the log yet'
            USING ERRCODE = 'SK003';
    END IF;
    RETURN r;
END $$;

-- Move the log's end by so many entries, and return where it is then.
CREATE FUNCTION ssekit.advance(r ssekit.rules, many bigint) RETURNS ssekit.answer
LANGUAGE plpgsql AS $$
DECLARE
    a ssekit.answer;
    here text := ssekit.mark();
BEGIN
    UPDATE ssekit.tip SET seq = seq + many,
        at = greatest(at, extract(epoch FROM clock_timestamp())) WHERE mark = here
        RETURNING epoch, seq, at INTO a.epoch, a.seq, a.at;
    IF NOT FOUND THEN
        INSERT INTO ssekit.past SELECT epoch, seq, mark FROM ssekit.tip;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the log has lost its end' USING ERRCODE = 'SK001';
        END IF;
        DELETE FROM ssekit.past WHERE epoch NOT IN
            (SELECT epoch FROM ssekit.past ORDER BY epoch DESC LIMIT r.epochs_remembered);
        UPDATE ssekit.tip SET seq = seq + many,
            at = greatest(at, extract(epoch FROM clock_timestamp())), mark = here,
            epoch = greatest(epoch + 1, floor(ssekit.clock() * 1000)::bigint)
            RETURNING epoch, seq, at INTO a.epoch, a.seq, a.at;
    END IF;
    PERFORM pg_notify('ssekit.log', '');
    IF a.seq % 16 < many THEN
        -- What nobody follows any more, since this was done last.
        DELETE FROM ssekit.entry WHERE kept = 0
            AND seq > a.seq - r.recent - many - 16 AND seq <= a.seq - r.recent;
        PERFORM ssekit.tidy(r, greatest(many, 16)::integer);
    END IF;
    a.word := 'stored';
    RETURN a;
END $$;

-- Store an entry at the end of the log.
CREATE FUNCTION ssekit.store(
    r ssekit.rules, into_channel bytea, its_body bytea, its_key bytea, is_passing boolean,
    reason_kept integer
) RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    a ssekit.answer := ssekit.advance(r, 1);
BEGIN
    INSERT INTO ssekit.entry (seq, epoch, kept, passing, at, channel, key, body)
        VALUES (a.seq, a.epoch, reason_kept, is_passing, a.at, into_channel, its_key, its_body);
    RETURN a;
END $$;

-- Keep an entry no longer, except for those who follow.
CREATE FUNCTION ssekit.withdraw(r ssekit.rules, its_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF its_seq > (SELECT seq FROM ssekit.tip) - r.recent THEN
        UPDATE ssekit.entry SET kept = 0 WHERE seq = its_seq;
    ELSE
        DELETE FROM ssekit.entry WHERE seq = its_seq;
    END IF;
END $$;

-- Keep the events of a channel up to a seq no longer, except for those who follow.
CREATE FUNCTION ssekit.cut_to(r ssekit.rules, c ssekit.channel, upto bigint) RETURNS ssekit.channel
LANGUAGE plpgsql AS $$
DECLARE
    followed bigint := (SELECT seq FROM ssekit.tip) - r.recent;
    deleted bigint;
    withdrawn bigint;
BEGIN
    DELETE FROM ssekit.entry
        WHERE channel = c.name AND kept = 1 AND seq <= least(upto, followed);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    UPDATE ssekit.entry SET kept = 0 WHERE channel = c.name AND kept = 1 AND seq <= upto;
    GET DIAGNOSTICS withdrawn = ROW_COUNT;
    c.events := c.events - deleted - withdrawn;
    c.trimmed := upto;
    RETURN c;
END $$;

-- Leave only the newest events of a channel.
CREATE FUNCTION ssekit.cut(r ssekit.rules, c ssekit.channel, keep bigint) RETURNS ssekit.channel
LANGUAGE plpgsql AS $$
DECLARE
    upto bigint;
BEGIN
    IF c.events <= keep THEN
        RETURN c;
    END IF;
    SELECT seq INTO upto FROM ssekit.entry WHERE channel = c.name AND kept = 1
        ORDER BY seq OFFSET c.events - keep - 1 LIMIT 1;
    RETURN ssekit.cut_to(r, c, upto);
END $$;

-- A number of events as channels are compared.  It has steps because an event that changes nothing
-- that an index has is much cheaper to store.
CREATE FUNCTION ssekit.in_steps(events bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN events < 128 THEN events
        WHEN events < 1024 THEN events & ~15::bigint ELSE events & ~127::bigint END
$$;

-- Save a channel, and what it adds to the log's sums.  A produced channel does not count while it
-- has a producer, and an internal one never does.
CREATE FUNCTION ssekit.save(r ssekit.rules, c ssekit.channel) RETURNS ssekit.channel
LANGUAGE plpgsql AS $$
DECLARE
    internal boolean := substr(c.name, 1, 1) = '\x00';
    counted_before bigint := c.counted;
    bare_before boolean := c.bare;
    bare_channels bigint;
    oldest bigint;
BEGIN
    c.counted := CASE WHEN internal OR c.producer IS NOT NULL THEN 0 ELSE c.events END;
    c.length := CASE WHEN internal OR c.produced THEN 0 ELSE ssekit.in_steps(c.events) END;
    c.quiet_since := CASE WHEN c.events < 128 THEN c.last ELSE 0 END;
    c.is_given_up := c.produced AND c.ending IS NOT NULL AND c.events > 0;
    c.bare := c.events = 0 AND c.keys = 0 AND c.ending IS NULL AND c.producer IS NULL;
    IF c.bare AND c.trimmed <= (SELECT floor FROM ssekit.tip) THEN
        DELETE FROM ssekit.channel WHERE name = c.name;
        c.bare := false;
    ELSE
        UPDATE ssekit.channel SET trimmed = c.trimmed, last = c.last, events = c.events,
            keys = c.keys, ending = c.ending, ended = c.ended, reason = c.reason,
            producer = c.producer, produced = c.produced, counted = c.counted,
            length = c.length, quiet_since = c.quiet_since, is_given_up = c.is_given_up,
            bare = c.bare WHERE name = c.name;
        IF NOT FOUND THEN
            INSERT INTO ssekit.channel SELECT c.*;
        END IF;
    END IF;
    IF c.counted <> counted_before OR c.bare <> bare_before THEN
        UPDATE ssekit.tip SET counted = counted + c.counted - counted_before,
            bare = bare + c.bare::integer - bare_before::integer
            RETURNING bare INTO bare_channels;
        WHILE bare_channels > r.channels_remembered LOOP
            DELETE FROM ssekit.channel WHERE name =
                (SELECT name FROM ssekit.channel WHERE bare ORDER BY trimmed LIMIT 1)
                RETURNING trimmed INTO oldest;
            UPDATE ssekit.tip SET floor = greatest(floor, oldest), bare = bare - 1
                RETURNING bare INTO bare_channels;
        END LOOP;
    END IF;
    RETURN c;
END $$;

-- Return a channel, known or new, without what has expired.
CREATE FUNCTION ssekit.load(r ssekit.rules, wanted bytea) RETURNS ssekit.channel
LANGUAGE plpgsql AS $$
DECLARE
    c ssekit.channel;
    cutoff double precision;
    event record;
    upto bigint;
    internal boolean;
    changed boolean := false;
BEGIN
    SELECT * INTO c FROM ssekit.channel WHERE name = wanted;
    IF NOT FOUND THEN
        c.name := wanted;
        c.trimmed := (SELECT floor FROM ssekit.tip);
        c.last := 0;
        c.events := 0;
        c.keys := 0;
        c.ended := 0;
        c.produced := false;
        c.counted := 0;
        c.bare := false;
        RETURN c;
    END IF;
    internal := substr(c.name, 1, 1) = '\x00';
    IF c.events > 0 AND (internal OR r.max_age IS NOT NULL) THEN
        cutoff := CASE WHEN internal
            THEN greatest((SELECT at FROM ssekit.tip), ssekit.clock()) - r.internal_kept
            ELSE ssekit.expired() END;
        FOR event IN SELECT seq, at FROM ssekit.entry
            WHERE channel = c.name AND kept = 1 ORDER BY seq
        LOOP
            EXIT WHEN event.at >= cutoff;
            upto := event.seq;
        END LOOP;
        IF upto IS NOT NULL THEN
            c := ssekit.cut_to(r, c, upto);
            changed := true;
        END IF;
    END IF;
    IF c.ending IS NOT NULL AND ssekit.is_forgotten(c, r.end_remembered) THEN
        PERFORM ssekit.withdraw(r, c.ending);
        c.ending := NULL;
        c.reason := NULL;
        c.produced := false;
        changed := true;
    END IF;
    IF changed THEN
        c := ssekit.save(r, c);
    END IF;
    RETURN c;
END $$;

-- Forget what has expired of some more channels, in turn.
CREATE FUNCTION ssekit.tidy(r ssekit.rules, many integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    next bytea;
BEGIN
    next := (SELECT turn FROM ssekit.tip);
    FOR n IN 1..many LOOP
        next := (SELECT name FROM ssekit.channel WHERE name > next ORDER BY name LIMIT 1);
        EXIT WHEN next IS NULL;
        PERFORM ssekit.load(r, next);
    END LOOP;
    UPDATE ssekit.tip SET turn = coalesce(next, '');
END $$;

-- Have all channels together keep no more than the log has room for.
CREATE FUNCTION ssekit.bound(r ssekit.rules) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found_name bytea;
    c ssekit.channel;
BEGIN
    FOR n IN 1..1000 LOOP
        EXIT WHEN (SELECT counted FROM ssekit.tip) <= greatest(r.capacity, r.history);
        SELECT name INTO found_name FROM ssekit.channel
            WHERE is_given_up ORDER BY ending LIMIT 1;
        IF FOUND THEN
            c := ssekit.cut(r, ssekit.load(r, found_name), 0);
        ELSE
            SELECT name INTO found_name FROM ssekit.channel
                WHERE length > 0 ORDER BY length DESC, quiet_since LIMIT 1;
            EXIT WHEN NOT FOUND;
            c := ssekit.load(r, found_name);
            c := ssekit.cut(r, c, least(r.history, c.events - 1));
        END IF;
        PERFORM ssekit.save(r, c);
    END LOOP;
END $$;

-- Bound a channel, save it, and bound the whole log.
CREATE FUNCTION ssekit.trim(r ssekit.rules, c ssekit.channel) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF c.produced THEN
        c := ssekit.cut(r, c, r.most_produced);
    ELSIF c.events >= 2 * r.history THEN
        c := ssekit.cut(r, c, r.history);
    END IF;
    PERFORM ssekit.save(r, c);
    PERFORM ssekit.bound(r);
END $$;

-- Store an event, and what is to happen to its channel because of it.
CREATE FUNCTION ssekit.put(
    r ssekit.rules, into_channel bytea, its_body bytea, its_key bytea, is_passing boolean,
    its_holder text
) RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    a ssekit.answer;
    c ssekit.channel := ssekit.load(r, into_channel);
    superseded bigint;
BEGIN
    IF c.ending IS NOT NULL THEN
        a.word := 'finished';
        a.detail := c.reason;
        RETURN a;
    ELSIF its_holder IS NOT NULL AND c.producer IS DISTINCT FROM its_holder THEN
        a.word := 'taken';
        RETURN a;
    ELSIF is_passing THEN
        RETURN ssekit.store(r, into_channel, its_body, NULL, true, 0);
    ELSIF its_key IS NULL THEN
        a := ssekit.store(r, into_channel, its_body, NULL, false, 1);
        c.last := a.seq;
        c.events := c.events + 1;
        PERFORM ssekit.trim(r, c);
        RETURN a;
    END IF;
    SELECT seq INTO superseded FROM ssekit.entry
        WHERE channel = into_channel AND key = its_key AND kept = 2;
    IF FOUND THEN
        PERFORM ssekit.withdraw(r, superseded);
    ELSIF c.keys >= r.max_keys AND substr(into_channel, 1, 1) <> '\x00' THEN
        a.word := 'full';
        a.detail := r.max_keys;
        RETURN a;
    ELSE
        c.keys := c.keys + 1;
    END IF;
    a := ssekit.store(r, into_channel, its_body, its_key, false, 2);
    c.last := a.seq;
    PERFORM ssekit.save(r, c);
    RETURN a;
END $$;

-- Store events without keys, of any channels, as `put` would one after the other.
CREATE FUNCTION ssekit.put_together(
    r ssekit.rules, channels bytea[], bodies bytea[], are_passing boolean[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    finished bytea[] := '{}';
    many bigint := cardinality(channels);
    o record;
    a ssekit.answer;
    c ssekit.channel;
BEGIN
    FOR o IN SELECT u.channel, count(*) AS events FROM unnest(channels) AS u (channel) GROUP BY 1
    LOOP
        c := ssekit.load(r, o.channel);
        IF c.ending IS NOT NULL THEN
            finished := finished || o.channel;
            many := many - o.events;
            FOR n IN 1..o.events LOOP
                PERFORM ssekit.warn_of_drop(o.channel, 'finished', c.reason);
            END LOOP;
        END IF;
    END LOOP;
    IF many = 0 THEN
        RETURN;
    END IF;
    a := ssekit.advance(r, many);
    FOR o IN
        WITH placed AS (
            INSERT INTO ssekit.entry (seq, epoch, kept, passing, at, channel, body)
                SELECT a.seq - many + row_number() OVER (ORDER BY u.n), a.epoch,
                    CASE WHEN u.passing THEN 0 ELSE 1 END, u.passing, a.at, u.channel, u.body
                FROM unnest(channels, bodies, are_passing) WITH ORDINALITY
                    AS u (channel, body, passing, n)
                WHERE u.channel <> ALL (finished)
                RETURNING seq, kept, channel
        )
        SELECT p.channel, count(*) AS events, max(p.seq) AS last FROM placed p
            WHERE p.kept = 1 GROUP BY 1
    LOOP
        c := ssekit.load(r, o.channel);
        c.last := o.last;
        c.events := c.events + o.events;
        PERFORM ssekit.trim(r, c);
    END LOOP;
END $$;

CREATE FUNCTION ssekit.warn_of_drop(its_channel bytea, word text, detail text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF word = 'finished' THEN
        RAISE WARNING 'ssekit: an event for the channel "%" was dropped: when its transaction was committed, the channel was finished (%)',
            encode(its_channel, 'escape'), detail;
    ELSIF word = 'full' THEN
        RAISE WARNING 'ssekit: an event for the channel "%" was dropped: it has % keys already',
            encode(its_channel, 'escape'), detail;
    END IF;
END $$;

-- Put what committed transactions have published into the log, in the order in which each of them
-- published it.  Returns whether there is more: 100 events, or 4 MiB, are enough for one
-- transaction, because the old versions of a row that it changes again and again stay until its end.
CREATE FUNCTION ssekit.drain(r ssekit.rules) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    run record;
    a ssekit.answer;
BEGIN
    FOR run IN
        WITH first AS (
            SELECT o.id, sum(octet_length(o.body)) OVER (ORDER BY o.id) - octet_length(o.body)
                AS bytes_before
            FROM ssekit.outbox o ORDER BY o.id LIMIT 100
        ), gone AS (
            DELETE FROM ssekit.outbox
                WHERE id IN (SELECT id FROM first WHERE bytes_before < 4194304) RETURNING *
        ), numbered AS (
            SELECT *, row_number() OVER (ORDER BY id)
                - row_number() OVER (PARTITION BY key IS NULL ORDER BY id) AS place
            FROM gone
        )
        SELECT key IS NULL AS together, array_agg(channel ORDER BY id) AS channels,
            array_agg(key ORDER BY id) AS keys, array_agg(body ORDER BY id) AS bodies,
            array_agg(passing ORDER BY id) AS are_passing
        FROM numbered GROUP BY key IS NULL, place ORDER BY min(id)
    LOOP
        IF run.together THEN
            PERFORM ssekit.put_together(r, run.channels, run.bodies, run.are_passing);
        ELSE
            FOR n IN 1..cardinality(run.channels) LOOP
                a := ssekit.put(r, run.channels[n], run.bodies[n], run.keys[n],
                    run.are_passing[n], NULL);
                PERFORM ssekit.warn_of_drop(run.channels[n], a.word, a.detail);
            END LOOP;
        END IF;
    END LOOP;
    RETURN EXISTS (SELECT FROM ssekit.outbox);
END $$;

-- The step that gives committed events their places, or some of them if there are many.  Returns
-- "nothing", "done" or "more".  Without any it takes no lock.
CREATE FUNCTION ssekit.sequence(bounds double precision[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ssekit.outbox) THEN
        RETURN 'nothing';
    END IF;
    PERFORM ssekit.lock();
    RETURN CASE WHEN ssekit.drain(ssekit.rules_of_log(bounds)) THEN 'more' ELSE 'done' END;
END $$;

-- Look after the outbox, if no other process does, and return the last seq, and what `sequence`
-- says.  A process that does not look after it gets, as `at`, the seconds until its next turn to
-- ask.  All turns together are `apart` seconds apart, however many processes there are.  With NULL
-- it takes no turn.
CREATE FUNCTION ssekit.look(
    bounds double precision[], me text, term double precision, apart double precision
) RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    a ssekit.answer;
BEGIN
    a.word := 'other';
    IF ssekit.watches(me, ssekit.clock(), term) THEN
        a.detail := ssekit.sequence(bounds);
        a.word := 'watches';
    ELSIF apart IS NOT NULL THEN
        a.at := ssekit.take_turn(apart);
    END IF;
    a.seq := (SELECT seq FROM ssekit.tip);
    RETURN a;
END $$;

-- Take the next turn, and return the seconds until then.
CREATE FUNCTION ssekit.take_turn(apart double precision) RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    now double precision := ssekit.clock();
    next bigint := ceil(now / apart);
    turn bigint;
BEGIN
    -- A sequence is written to the disk like a table, and nothing is lost with a turn.
    PERFORM set_config('synchronous_commit', 'off', true);
    turn := nextval('ssekit.turn');
    IF turn < next OR turn * apart > now + 60 THEN  -- nobody has asked, or the clock was set back
        turn := setval('ssekit.turn', next);
    END IF;
    RETURN turn * apart - now;
END $$;

-- Whether it is this process that looks after the outbox, from now on or still.
CREATE FUNCTION ssekit.watches(me text, now double precision, term double precision)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    w ssekit.watch;
BEGIN
    SELECT * INTO w FROM ssekit.watch;
    IF NOT FOUND THEN
        INSERT INTO ssekit.watch VALUES (true, me, now + term) ON CONFLICT DO NOTHING;
        RETURN FOUND;
    ELSIF w.holder <> me AND w.until > now THEN
        RETURN false;
    ELSIF w.holder <> me OR w.until < now + term / 2 THEN
        UPDATE ssekit.watch SET holder = me, until = now + term
            WHERE holder = me OR until <= now;
        RETURN FOUND;
    END IF;
    RETURN true;
END $$;

-- Publish in the caller's own transaction: it becomes visible when that is committed.
CREATE FUNCTION ssekit.enqueue(
    expected text, remembered double precision, into_channel bytea, its_body bytea, its_key bytea,
    is_passing boolean
) RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    a ssekit.answer;
BEGIN
    IF ssekit.identity() IS DISTINCT FROM expected THEN
        a.word := 'elsewhere';
        RETURN a;
    END IF;
    a := ssekit.status(into_channel, remembered);
    IF a.word = 'finished' THEN
        RETURN a;
    END IF;
    INSERT INTO ssekit.outbox (channel, key, passing, body)
        VALUES (into_channel, its_key, is_passing, its_body);
    a.word := 'queued';
    RETURN a;
END $$;

-- Names a log among its copies in other databases.
CREATE FUNCTION ssekit.identity() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT concat_ws('/', uid, (SELECT oid FROM pg_database WHERE datname = current_database()))
        FROM ssekit.log
    );
END $$;

-- First the ordinary append: another event without a key of a channel that has some.  It changes
-- nothing where anything else is to be done: a bound is reached, something may have expired, the
-- outbox is not empty, an epoch begins, or channels are to be tidied.
CREATE FUNCTION ssekit.append(
    bounds double precision[], into_channel bytea, its_body bytea, its_key bytea,
    is_passing boolean, its_holder text
) RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    a ssekit.answer;
    here text;
BEGIN
    IF its_key IS NULL AND NOT is_passing AND its_holder IS NULL THEN
        PERFORM ssekit.lock();
        here := ssekit.mark();
        UPDATE ssekit.channel c SET last = t.seq + 1, events = c.events + 1,
                counted = c.counted + 1, length = ssekit.in_steps(c.events + 1),
                quiet_since = CASE WHEN c.events + 1 < 128 THEN t.seq + 1 ELSE 0 END
            FROM ssekit.tip t, ssekit.log l
            -- A channel that is internal or has a producer counts no events.
            WHERE c.name = into_channel AND c.events > 0 AND c.counted = c.events
                AND NOT c.produced AND c.ending IS NULL AND c.events + 1 < 2 * l.history
                AND t.counted < greatest(l.capacity, l.history) AND l.max_age IS NULL
                AND t.mark = here AND (t.seq + 1) % 16 <> 0
                AND NOT EXISTS (SELECT FROM ssekit.outbox);
        IF FOUND THEN
            UPDATE ssekit.tip SET seq = seq + 1, counted = counted + 1,
                at = greatest(at, extract(epoch FROM clock_timestamp()))
                RETURNING 'stored', epoch, seq, at INTO a.word, a.epoch, a.seq, a.at;
            INSERT INTO ssekit.entry (seq, epoch, kept, passing, at, channel, body)
                VALUES (a.seq, a.epoch, 1, false, a.at, into_channel, its_body);
            PERFORM pg_notify('ssekit.log', '');
            RETURN a;
        END IF;
    END IF;
    RETURN ssekit.put(
        ssekit.begin_writing(bounds), into_channel, its_body, its_key, is_passing, its_holder);
END $$;

CREATE FUNCTION ssekit.remove(
    bounds double precision[], from_channel bytea, its_key bytea, its_body bytea
) RETURNS ssekit.answer LANGUAGE plpgsql AS $$
BEGIN
    RETURN ssekit.take_out(ssekit.begin_writing(bounds), from_channel, its_key, its_body);
END $$;

-- Store the removal of a key.
CREATE FUNCTION ssekit.take_out(
    r ssekit.rules, from_channel bytea, its_key bytea, its_body bytea
) RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    c ssekit.channel := ssekit.load(r, from_channel);
    a ssekit.answer;
    value bigint;
BEGIN
    IF c.ending IS NOT NULL THEN
        a.word := 'finished';
        a.detail := c.reason;
        RETURN a;
    END IF;
    SELECT seq INTO value FROM ssekit.entry
        WHERE channel = from_channel AND key = its_key AND kept = 2;
    IF NOT FOUND THEN
        a.word := 'nothing';
        RETURN a;
    END IF;
    PERFORM ssekit.withdraw(r, value);
    a := ssekit.store(r, from_channel, its_body, its_key, false, 1);
    c.last := a.seq;
    c.keys := c.keys - 1;
    c.events := c.events + 1;
    PERFORM ssekit.trim(r, c);
    RETURN a;
END $$;

CREATE FUNCTION ssekit.finish(
    bounds double precision[], its_channel bytea, its_body bytea, its_reason text, its_holder text
) RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    r ssekit.rules := ssekit.begin_writing(bounds);
    c ssekit.channel := ssekit.load(r, its_channel);
    a ssekit.answer;
    before text := c.producer;
BEGIN
    IF c.ending IS NOT NULL OR (its_holder IS NOT NULL AND before IS DISTINCT FROM its_holder) THEN
        a.word := 'nothing';
        RETURN a;
    END IF;
    a := ssekit.store(r, its_channel, its_body, NULL, false, 3);
    c.last := a.seq;
    c.ending := a.seq;
    c.ended := a.at;
    c.reason := its_reason;
    c.producer := NULL;
    PERFORM ssekit.save(r, c);
    IF before IS NOT NULL THEN
        PERFORM ssekit.release(before, its_channel, false, '');
    END IF;
    PERFORM ssekit.bound(r);
    RETURN a;
END $$;

CREATE FUNCTION ssekit.reopen(bounds double precision[], its_channel bytea) RETURNS ssekit.answer
LANGUAGE plpgsql AS $$
DECLARE
    r ssekit.rules := ssekit.begin_writing(bounds);
    c ssekit.channel := ssekit.load(r, its_channel);
    a ssekit.answer;
BEGIN
    IF c.ending IS NULL THEN
        a.word := 'nothing';
        RETURN a;
    END IF;
    PERFORM ssekit.withdraw(r, c.ending);
    c.ending := NULL;
    c.reason := NULL;
    c.produced := false;
    PERFORM ssekit.trim(r, c);
    a.word := 'reopened';
    RETURN a;
END $$;

-- Write what was given into a log that exists.
CREATE FUNCTION ssekit.settle(
    bounds double precision[], given text[], new_history bigint, new_capacity bigint,
    new_max_keys bigint, new_max_age double precision
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ssekit.begin_writing(bounds);
    UPDATE ssekit.log SET
        history = CASE WHEN 'history' = ANY (given) THEN new_history ELSE history END,
        capacity = CASE WHEN 'capacity' = ANY (given) THEN new_capacity ELSE capacity END,
        max_keys = CASE WHEN 'max_keys' = ANY (given) THEN new_max_keys ELSE max_keys END,
        max_age = CASE WHEN 'max_age' = ANY (given) THEN new_max_age ELSE max_age END;
END $$;
