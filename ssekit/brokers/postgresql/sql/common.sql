-- What reading and writing share.

-- What most functions return: first a word that says what it is.
CREATE TYPE ssekit.answer AS (
    word text,
    detail text,
    epoch bigint,
    seq bigint,
    at double precision,
    channel bytea,
    key bytea,
    passing boolean,
    body bytea
);

-- What a log keeps, and the bounds that hold for every log.
CREATE TYPE ssekit.rules AS (
    history bigint,
    capacity bigint,
    max_keys bigint,
    max_age double precision,
    recent bigint,
    channels_remembered bigint,
    epochs_remembered bigint,
    end_remembered double precision,
    most_produced bigint,
    internal_kept double precision
);

-- The server's clock, in seconds since 1970.
CREATE FUNCTION ssekit.clock() RETURNS double precision LANGUAGE sql VOLATILE AS $$
    SELECT extract(epoch FROM clock_timestamp())::double precision
$$;

-- What is older than this time has expired.  A function in SQL would be planned at each call.
CREATE FUNCTION ssekit.expired() RETURNS double precision LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT CASE WHEN l.max_age IS NULL THEN 0 ELSE
            greatest(t.at, extract(epoch FROM clock_timestamp())::double precision) - l.max_age END
        FROM ssekit.log l, ssekit.tip t
    );
END $$;

-- Whether a channel is finished, and its end is too old to be remembered.
CREATE FUNCTION ssekit.is_forgotten(c ssekit.channel, remembered double precision)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    newest double precision;
BEGIN
    IF c.ending IS NULL OR c.ended >= (
        SELECT greatest(t.at, extract(epoch FROM clock_timestamp())::double precision)
            - coalesce(l.max_age, 0) - remembered
        FROM ssekit.log l, ssekit.tip t
    ) THEN
        RETURN false;
    END IF;
    SELECT at INTO newest FROM ssekit.entry
        WHERE channel = c.name AND kept = 1 ORDER BY seq DESC LIMIT 1;
    RETURN newest IS NULL OR newest < ssekit.expired();
END $$;
