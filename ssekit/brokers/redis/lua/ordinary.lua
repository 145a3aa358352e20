-- The ordinary append: another event of a channel, the next value of a key, or a passing event.
--
-- It looks at no more of the log than it touches, and bounds nothing, so it takes a third of the
-- commands.  Where anything is out of the ordinary (a channel or a key that is new or finished, a
-- bound that is reached, a part of the log that is missing) it has changed nothing, and the whole
-- script is run.  So it is for one entry in WHOLE and for the first call of each process: then all
-- is looked at that this leaves out, and what has expired is forgotten.

local WHOLE = 64
local LATE = 64  -- events above its history that a channel may have before it is trimmed

-- How far above its history a channel may be.
local function late(history)
    return math.min(math.floor(history / 16), LATE)
end

-- Whether the parts of the log are there that an append would make anew, with all that they had.
local function is_whole(keyed, trims)
    return call('HLEN', entries) == call('ZCARD', index)
        and (keyed == '0' or call('HLEN', keys) == tonumber(keyed))
        and (trims == '0' or call('EXISTS', trimmed) == 1)
end

-- Returns what has to be known for an ordinary append; nil if it is not one.  Changes nothing.
local function look_ordinary(channel, kind, key, holder)
    local found = call('HMGET', log, FIELD, 'run', 'epoch', 'seq', 'time', 'keyed', 'trims',
        'history', 'capacity', 'events')
    local seq, history = tonumber(found[4]), tonumber(found[8])
    if not found[1] or (run ~= '' and run ~= found[2]) or (seq + 1) % WHOLE == 0
        or not is_whole(found[6], found[7]) or call('HGET', ends, channel)
        or (holder ~= '' and call('HGET', produced, channel) ~= holder) then
        return nil
    end
    local events, before = nil, nil
    if kind == 'key' then
        before = call('HGET', keys, channel .. '\1' .. key)
        if not before then
            return nil
        end
    elseif kind == 'event' and holder ~= '' then
        local prefix = channel .. '\1e'
        local length = call('ZLEXCOUNT', index, '(' .. prefix, '(' .. prefix .. ':')
        if length == 0 or length >= bounds.most_produced then
            return nil
        end
    elseif kind == 'event' then
        local length = call('ZSCORE', lengths, channel)  -- see `note`
        events = found[10] + 1
        if not length or math.ceil(length) > history + late(history)
            or events > math.max(found[9], history) then
            return nil
        end
    end
    return found[3], seq + 1, tonumber(found[5]), before, events
end

local function append_ordinary(channel, packed, kind, key, holder)
    local known, epoch, number, time, before, events =
        pcall(look_ordinary, channel, kind, key, holder)
    if not known or not epoch then
        return nil
    end
    local now = call('TIME')
    now = string.format('%d', math.max(now[1] * 1000 + math.floor(now[2] / 1000), time))
    local seq, id = string.format('%d', number), epoch .. '-' .. string.format('%d', number)
    local record = epoch .. ' ' .. now .. ' ' .. packed
    -- The first command that writes: nothing has changed if it is refused.
    local added = redis.pcall('XADD', stream, 'NOMKSTREAM', 'MAXLEN', bounds.recent, id, FIELD, record)
    if added ~= id then
        return nil
    end
    if kind ~= 'passing' then
        local member = channel .. (before and '\1k' or '\1e')
        call('HSET', entries, seq, record)
        call('ZADD', index, 0, member .. string.format('%016d', number))
        if before then
            call('HSET', keys, channel .. '\1' .. key, seq)
            call('HDEL', entries, before)
            call('ZREM', index, member .. string.format('%016d', before))
        end
    end
    if events then
        call('ZINCRBY', lengths, 1, channel)
        call('HSET', log, 'seq', seq, 'time', now, 'events', string.format('%d', events))
    else
        call('HSET', log, 'seq', seq, 'time', now)
    end
    return 'stored ' .. id .. ' ' .. now
end

if ARGV[4] == 'append' and ARGV[3] == '' then
    local answer = append_ordinary(unpack(ARGV, 5))
    if answer then
        return answer
    end
end
