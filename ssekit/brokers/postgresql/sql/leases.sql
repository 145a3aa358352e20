-- The leases of a log: who has one, and what each holds.

CREATE FUNCTION ssekit.beat(bounds double precision[], me text, is_first boolean)
RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    a ssekit.answer;
BEGIN
    PERFORM ssekit.begin_writing(bounds);
    UPDATE ssekit.lease SET beats = beats + 1 WHERE holder = me AND beats >= 0;
    IF NOT FOUND AND is_first THEN
        INSERT INTO ssekit.lease VALUES (me, 1) ON CONFLICT DO NOTHING;
    END IF;
    a.word := CASE WHEN FOUND THEN 'renewed' ELSE 'ended' END;
    RETURN a;
END $$;

CREATE FUNCTION ssekit.end_lease(bounds double precision[], its_holder text, seen bigint)
RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    a ssekit.answer;
BEGIN
    PERFORM ssekit.begin_writing(bounds);
    IF EXISTS (SELECT FROM ssekit.lease WHERE holder = its_holder AND beats NOT IN (seen, -1)) THEN
        a.word := 'renewed';
        RETURN a;
    END IF;
    UPDATE ssekit.lease SET beats = -1 WHERE holder = its_holder AND beats <> -1;
    PERFORM ssekit.forget_lease(its_holder);
    a.word := 'ended';
    RETURN a;
END $$;

-- Forget a lease that was ended and holds nothing.
CREATE FUNCTION ssekit.forget_lease(its_holder text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM ssekit.lease WHERE holder = its_holder AND beats = -1
        AND NOT EXISTS (SELECT FROM ssekit.held WHERE holder = its_holder)
$$;

CREATE FUNCTION ssekit.has_lease(its_holder text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (SELECT FROM ssekit.lease WHERE holder = its_holder AND beats >= 0)
$$;

-- Have a lease hold something no longer; false if it did not.
CREATE FUNCTION ssekit.release(
    its_holder text, its_channel bytea, a_member boolean, its_member bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM ssekit.held WHERE channel = its_channel AND is_member = a_member
        AND member = its_member AND holder = its_holder;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM ssekit.forget_lease(its_holder);
    RETURN true;
END $$;

CREATE FUNCTION ssekit.produce(bounds double precision[], its_channel bytea, me text)
RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    r ssekit.rules := ssekit.begin_writing(bounds);
    c ssekit.channel;
    a ssekit.answer;
BEGIN
    IF NOT ssekit.has_lease(me) THEN
        a.word := 'dead';
        RETURN a;
    END IF;
    c := ssekit.load(r, its_channel);
    IF c.ending IS NOT NULL THEN
        a.word := 'finished';
        a.detail := c.reason;
        RETURN a;
    ELSIF c.producer IS NOT NULL THEN
        a.word := 'busy';
        RETURN a;
    END IF;
    c.producer := me;
    c.produced := true;
    PERFORM ssekit.save(r, c);
    INSERT INTO ssekit.held VALUES (its_channel, false, '', me) ON CONFLICT DO NOTHING;
    a.word := 'produced';
    RETURN a;
END $$;

CREATE FUNCTION ssekit.is_held(its_channel bytea, its_member bytea) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (SELECT FROM ssekit.held
        WHERE channel = its_channel AND is_member AND member = its_member)
$$;

CREATE FUNCTION ssekit.join(
    bounds double precision[], channels bytea[], members bytea[], bodies bytea[], me text
) RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    r ssekit.rules := ssekit.begin_writing(bounds);
    a ssekit.answer;
    body_now bytea;
BEGIN
    IF NOT ssekit.has_lease(me) THEN
        a.word := 'dead';
        RETURN a;
    END IF;
    FOR n IN 1..cardinality(members) LOOP
        body_now := NULL;
        SELECT body INTO body_now FROM ssekit.entry
            WHERE channel = channels[n] AND key = members[n] AND kept = 2;
        IF body_now IS DISTINCT FROM bodies[n] OR NOT ssekit.is_held(channels[n], members[n]) THEN
            PERFORM ssekit.put(r, channels[n], bodies[n], members[n], false, NULL);
        END IF;
        INSERT INTO ssekit.held VALUES (channels[n], true, members[n], me) ON CONFLICT DO NOTHING;
    END LOOP;
    a.word := 'joined';
    RETURN a;
END $$;

CREATE FUNCTION ssekit.leave(
    bounds double precision[], channels bytea[], members bytea[], bodies bytea[], me text
) RETURNS ssekit.answer LANGUAGE plpgsql AS $$
DECLARE
    r ssekit.rules := ssekit.begin_writing(bounds);
    a ssekit.answer;
BEGIN
    FOR n IN 1..cardinality(members) LOOP
        IF ssekit.release(me, channels[n], true, members[n])
            AND NOT ssekit.is_held(channels[n], members[n])
        THEN
            PERFORM ssekit.take_out(r, channels[n], members[n], bodies[n]);
        END IF;
    END LOOP;
    a.word := 'left';
    RETURN a;
END $$;
