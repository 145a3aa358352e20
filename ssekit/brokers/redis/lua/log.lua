-- Whether the keys are a log of ours, and what is common to reading and writing.

local TYPES = {
    'stream', 'hash', 'hash', 'zset', 'hash', 'zset', 'zset', 'zset',
    'zset', 'hash', 'zset', 'hash', 'zset', 'hash', 'zset', 'hash', 'zset',
}
local FIELDS = {
    'epoch', 'seq', 'time', 'floor', 'trims', 'events', 'keyed',
    'history', 'capacity', 'max_keys', 'max_age',
}

local state = {}  -- of the log: FIELDS, and `run`
local now = call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

local function int(number)
    return string.format('%.0f', number)
end

local function padded(seq)
    return string.format('%016.0f', seq)
end

-- Returns 'ours', 'empty' or 'damaged'; or 'foreign' and the key that is somebody else's.
local function look()
    local there, some = {}, nil
    for n, name in ipairs(KEYS) do
        local kind = call('TYPE', name).ok
        if kind ~= 'none' then
            if kind ~= TYPES[n] then
                return 'foreign', name
            end
            there[name] = true
            some = some or name
        end
    end
    if not some then
        return 'empty'
    end
    local last = there[stream] and call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    if last and (#last[2] ~= 2 or last[2][1] ~= FIELD) then
        return 'foreign', stream
    end
    if not there[log] then
        if last then
            return 'damaged'
        end
        return 'foreign', some
    end
    local found = call('HMGET', log, FIELD, 'run', unpack(FIELDS))
    if not found[1] then
        return 'foreign', log
    end
    state.run = found[2]
    for n, name in ipairs(FIELDS) do
        state[name] = tonumber(found[n + 2])
    end
    now = math.max(now, state.time)
    local expected = state.seq > 0 and int(state.epoch) .. '-' .. int(state.seq)
    if (last and last[1] or false) ~= expected
        or call('HLEN', entries) ~= call('ZCARD', index)
        or call('HLEN', keys) ~= state.keyed
        or (state.trims > 0 and not there[trimmed]) then
        return 'damaged'
    end
    return 'ours'
end

local function time_of(seq)
    return tonumber(string.match(call('HGET', entries, int(seq)), '^%d+ (%d+)'))
end

-- Events that were stored before this have expired.
local function expiry()
    return state.max_age and now - state.max_age * 1000 or 0
end

-- Returns whether an event with this seq has expired.
local function is_expired(seq)
    return state.max_age ~= nil and time_of(seq) < expiry()
end

-- The part of `index` with a channel's events ('e') or keys ('k'), after a seq.
local function range(channel, kind, after)
    local prefix = channel .. '\1' .. kind
    -- What follows a seq in a member is an "r", and ":" comes after all digits.
    return '(' .. prefix .. (after and padded(after) .. 's' or ''), '(' .. prefix .. ':'
end

local function seq_of(member)
    return tonumber(string.match(member, '(%d+)r?$'))
end

-- Returns the seq of a channel's end, its reason and its record, or nil if it is not finished.
local function ending(channel)
    local text = call('HGET', ends, channel)
    if not text then
        return nil
    end
    local seq, length, at = string.match(text, '^(%d+) (%d+) ()')
    local reason = string.sub(text, at, at + length - 1)
    local record = string.sub(text, at + length)
    local stored = tonumber(string.match(record, '^%d+ (%d+)'))
    if stored < now - bounds.end_remembered * 1000 - (state.max_age or 0) * 1000 then
        local from, to = range(channel, 'e')
        local newest = call('ZREVRANGEBYLEX', index, to, from, 'LIMIT', 0, 1)[1]
        if not newest or is_expired(seq_of(newest)) then
            return nil  -- it is forgotten
        end
    end
    return tonumber(seq), reason, record
end
