-- The log's keys, whether they are a log of ours, and what is common to reading and writing.
--
-- KEYS are all that the log has, however many channels: no name is made up here, so that a cluster
-- knows them.  ARGV[1] names the run of the server; ARGV[2] has the settings that a new log gets and
-- ARGV[3] those that were given, as JSON or empty; ARGV[4] is the command.  Before this text comes a
-- table of `bounds`.
--
--   stream    the newest entries of all channels, for those who follow
--   log       epoch, seq and settings
--   entries   seq -> record, of whatever `index` has
--   index     "CHANNEL \1 e SEQ" for each event without a key, with a final "r" for a removal, and
--             "CHANNEL \1 k SEQ" for the newest entry of each key; in lexicographic order
--   keys      "CHANNEL \1 KEY" -> seq
--   trimmed   channel -> the seq up to which its events were trimmed
--   oldest    channel -> the seq of its oldest event
--   removals  internal channel -> the seq of its oldest removal
--   lengths   channel -> its number of events, if the longest of these is to give up its oldest
--   past      earlier epoch -> its last seq
--   ends      channel -> seq, reason and record of its end
--   endings   channel -> when its end is to be looked at again
--   produced  channel -> its producer's lease, empty once that has finished
--   done      channel with a producer that has finished and events -> the seq of its end
--   leases    lease -> beats, -1 once it was ended
--   held      "LEASE \1 p CHANNEL" and "LEASE \1 m LENGTH:CHANNEL MEMBER"; in lexicographic order
--   present   "LENGTH:CHANNEL MEMBER" -> by how many leases it is held
--
-- A record is "EPOCH MILLISECONDS PACKED"; Python knows what is in the rest.

local stream, log, entries, index, keys, trimmed, oldest, lengths = unpack(KEYS, 1, 8)
local past, ends, endings, produced, done, leases, held, present, removals = unpack(KEYS, 9, 17)
local TYPES = {
    'stream', 'hash', 'hash', 'zset', 'hash', 'zset', 'zset', 'zset',
    'zset', 'hash', 'zset', 'hash', 'zset', 'hash', 'zset', 'hash', 'zset',
}
local FIELD = 'ssekit'  -- of each stream entry and of the log: the mark of what is ours
local FIELDS = {
    'epoch', 'seq', 'time', 'floor', 'trims', 'events', 'keyed',
    'history', 'capacity', 'max_keys', 'max_age',
}

local call = redis.call
local run = ARGV[1]
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
