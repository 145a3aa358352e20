-- What a log is asked.  All are STABLE: each call sees one moment.  What has expired since it was
-- last tidied is left out, and counts as trimmed.

-- Why a cursor is not in the log; NULL if it is.
CREATE FUNCTION ssekit.why_lost(its_epoch bigint, its_seq bigint) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    t ssekit.tip;
    reached bigint;
BEGIN
    SELECT * INTO t FROM ssekit.tip;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the log has lost its end' USING ERRCODE = 'SK001';
    END IF;
    reached := CASE WHEN t.epoch = its_epoch THEN t.seq
        ELSE (SELECT last FROM ssekit.past WHERE epoch = its_epoch) END;
    RETURN CASE WHEN reached IS NULL THEN 'it belongs to another log'
        WHEN its_seq > reached THEN 'the log then did not reach as far' END;
END $$;

-- Whether no event or removal of the channels after a seq was trimmed or has expired.
CREATE FUNCTION ssekit.are_kept(names bytea[], since bigint) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    cutoff double precision := ssekit.expired();
BEGIN
    RETURN NOT EXISTS (
        SELECT FROM unnest(names) AS n (name) LEFT JOIN ssekit.channel c ON c.name = n.name
        WHERE coalesce(c.trimmed, (SELECT floor FROM ssekit.tip)) > since
            OR (cutoff > 0 AND c.events > 0 AND substr(n.name, 1, 1) <> '\x00' AND cutoff > (
                SELECT x.at FROM ssekit.entry x
                WHERE x.channel = n.name AND x.kept = 1 AND x.seq > since
                ORDER BY x.seq LIMIT 1))
    );
END $$;

-- The log's end; raises if it is damaged.
CREATE FUNCTION ssekit.end_of_log(detail text) RETURNS SETOF ssekit.answer
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT 'tip', detail, epoch, seq, at, NULL::bytea, NULL::bytea, NULL::boolean,
        NULL::bytea FROM ssekit.tip;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the log has lost its end' USING ERRCODE = 'SK001';
    END IF;
END $$;

CREATE FUNCTION ssekit.lost(detail text) RETURNS ssekit.answer LANGUAGE sql IMMUTABLE AS $$
    SELECT 'lost', detail, NULL::bigint, NULL::bigint, NULL::double precision, NULL::bytea,
        NULL::bytea, NULL::boolean, NULL::bytea
$$;

-- Once the bodies before an entry come to `most_bytes`, it is not returned.  PostgreSQL knows how
-- long a body is without reading it.
CREATE FUNCTION ssekit.read(
    names bytea[], its_epoch bigint, since bigint, most bigint, most_bytes bigint
) RETURNS SETOF ssekit.answer LANGUAGE plpgsql STABLE AS $$
DECLARE
    why text := ssekit.why_lost(its_epoch, since);
BEGIN
    IF why IS NULL AND NOT ssekit.are_kept(names, since) THEN
        why := 'events after it are no longer kept';
    END IF;
    IF why IS NOT NULL THEN
        RETURN NEXT ssekit.lost(why);
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM ssekit.end_of_log(NULL);
    RETURN QUERY SELECT 'entry', NULL::text, y.epoch, y.seq, y.at, y.channel, y.key, y.passing,
            y.body
        FROM (
            SELECT x.*, sum(octet_length(x.body)) OVER (ORDER BY x.seq) - octet_length(x.body)
                AS bytes_before
            FROM unnest(names) AS n (name)
            JOIN ssekit.channel c ON c.name = n.name AND c.last > since
            CROSS JOIN (VALUES (1::smallint), (2::smallint), (3::smallint)) AS k (kept)
            CROSS JOIN LATERAL (
                SELECT * FROM ssekit.entry e
                WHERE e.channel = n.name AND e.kept = k.kept AND e.seq > since
                ORDER BY e.seq LIMIT most
            ) AS x
            ORDER BY x.seq LIMIT most
        ) AS y
        WHERE y.bytes_before < most_bytes
        ORDER BY y.seq;
END $$;

CREATE FUNCTION ssekit.follow(
    its_epoch bigint, since bigint, recent bigint, most bigint, most_bytes bigint
) RETURNS SETOF ssekit.answer LANGUAGE plpgsql STABLE AS $$
DECLARE
    why text := ssekit.why_lost(its_epoch, since);
BEGIN
    IF why IS NULL AND (SELECT seq FROM ssekit.tip) - since > recent THEN
        why := 'too many entries have followed it';
    END IF;
    IF why IS NOT NULL THEN
        RETURN NEXT ssekit.lost(why);
        RETURN;
    END IF;
    RETURN QUERY SELECT 'entry', NULL::text, y.epoch, y.seq, y.at, y.channel, y.key, y.passing,
            y.body
        FROM (
            SELECT x.*, sum(octet_length(x.body)) OVER (ORDER BY x.seq) - octet_length(x.body)
                AS bytes_before
            FROM ssekit.entry x WHERE x.seq > since ORDER BY x.seq LIMIT most
        ) AS y
        WHERE y.bytes_before < most_bytes
        ORDER BY y.seq;
END $$;

CREATE FUNCTION ssekit.recent(recent bigint, most bigint) RETURNS SETOF ssekit.answer
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT * FROM ssekit.end_of_log(NULL);
    RETURN QUERY SELECT 'entry', NULL::text, x.epoch, x.seq, x.at, x.channel, x.key, x.passing,
            x.body
        FROM ssekit.entry x WHERE x.seq > (SELECT seq FROM ssekit.tip) - least(recent, most)
        ORDER BY x.seq;
END $$;

-- The last events without a key before a seq, the newest first.
CREATE FUNCTION ssekit.last_events(names bytea[], before bigint, most bigint)
RETURNS SETOF ssekit.answer LANGUAGE plpgsql STABLE AS $$
DECLARE
    cutoff double precision := ssekit.expired();
BEGIN
    RETURN QUERY SELECT 'event', NULL::text, x.epoch, x.seq, x.at, x.channel, x.key, x.passing,
            x.body
        FROM unnest(names) AS n (name)
        CROSS JOIN LATERAL (
            SELECT * FROM ssekit.entry e
            WHERE e.channel = n.name AND e.kept = 1 AND e.seq < before AND e.key IS NULL
                AND e.at >= cutoff
            ORDER BY e.seq DESC LIMIT most
        ) AS x
        ORDER BY x.seq DESC LIMIT most;
END $$;

-- NULL for `its_epoch` stands for the end of the log, NULL for `most` for all.
CREATE FUNCTION ssekit.history(names bytea[], its_epoch bigint, before bigint, most bigint)
RETURNS SETOF ssekit.answer LANGUAGE plpgsql STABLE AS $$
DECLARE
    why text;
BEGIN
    IF its_epoch IS NULL THEN
        before := (SELECT seq + 1 FROM ssekit.tip);
    ELSE
        why := ssekit.why_lost(its_epoch, before);
    END IF;
    IF why IS NOT NULL THEN
        RETURN NEXT ssekit.lost(why);
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM ssekit.last_events(names, before, most);
END $$;

CREATE FUNCTION ssekit.ends(names bytea[], remembered double precision)
RETURNS SETOF ssekit.answer LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT 'end', c.reason, x.epoch, x.seq, x.at, x.channel, x.key, x.passing, x.body
        FROM unnest(names) AS n (name)
        JOIN ssekit.channel c ON c.name = n.name
        JOIN ssekit.entry x ON x.seq = c.ending
        WHERE NOT ssekit.is_forgotten(c, remembered);
END $$;

CREATE FUNCTION ssekit.opening(names bytea[], most bigint, remembered double precision)
RETURNS SETOF ssekit.answer LANGUAGE plpgsql STABLE AS $$
DECLARE
    complete text := CASE WHEN ssekit.are_kept(names, 0) THEN 'complete' END;
BEGIN
    RETURN QUERY SELECT * FROM ssekit.end_of_log(complete);
    RETURN QUERY SELECT 'value', NULL::text, x.epoch, x.seq, x.at, x.channel, x.key, x.passing,
            x.body
        FROM unnest(names) AS n (name)
        JOIN ssekit.entry x ON x.channel = n.name AND x.kept = 2
        ORDER BY x.seq;
    RETURN QUERY SELECT * FROM ssekit.last_events(
        names, (SELECT seq + 1 FROM ssekit.tip), most);
    RETURN QUERY SELECT * FROM ssekit.ends(names, remembered);
END $$;

CREATE FUNCTION ssekit.status(its_channel bytea, remembered double precision)
RETURNS ssekit.answer LANGUAGE plpgsql STABLE AS $$
DECLARE
    a ssekit.answer;
    c ssekit.channel;
BEGIN
    SELECT * INTO c FROM ssekit.channel WHERE name = its_channel;
    a.word := 'open';
    IF FOUND AND c.ending IS NOT NULL AND NOT ssekit.is_forgotten(c, remembered) THEN
        a.word := 'finished';
        a.detail := c.reason;
    ELSIF c.producer IS NOT NULL THEN
        a.word := 'producing';
    END IF;
    RETURN a;
END $$;
