-- Storing entries.  Each command answers with a word, and what belongs to it: in a table, or, as
-- that takes longer to read, in one text if it is what most answers are.

local SAVED = {'epoch', 'seq', 'time', 'floor', 'trims', 'events', 'keyed'}

local function save()
    local fields = {'run', state.run}
    for _, name in ipairs(SAVED) do
        fields[#fields + 1] = name
        fields[#fields + 1] = int(state[name])
    end
    call('HSET', log, unpack(fields))
end

local function settle(settings)
    for name, value in pairs(settings) do
        state[name] = tonumber(value)
        call('HSET', log, name, value)
    end
end

-- Begin a log, in the place of a damaged one if there is one.
local function create()
    local epoch = math.max(now, (state.epoch or 0) + 1)
    call('UNLINK', unpack(KEYS))
    state = {run = run, time = now, epoch = epoch}
    state.seq, state.floor, state.trims, state.events, state.keyed = 0, 0, 0, 0, 0
    call('HSET', log, FIELD, 1)
    settle(cjson.decode(ARGV[2]))
    save()
end

-- Store an entry for those who follow, and return its record.
local function store(packed)
    if run ~= '' and state.run ~= run then
        -- The server may have forgotten its newest entries: their ids are not given again.
        call('ZADD', past, int(state.seq), int(state.epoch))
        call('ZREMRANGEBYRANK', past, 0, -1 - bounds.epochs_remembered)
        state.epoch = math.max(now, state.epoch + 1)
        state.run = run
    end
    state.seq = state.seq + 1
    state.time = now
    local id = int(state.epoch) .. '-' .. int(state.seq)
    local record = int(state.epoch) .. ' ' .. int(now) .. ' ' .. packed
    call('XADD', stream, 'MAXLEN', bounds.recent, id, FIELD, record)
    return record
end

local function stored()
    return 'stored ' .. int(state.epoch) .. '-' .. int(state.seq) .. ' ' .. int(state.time)
end

-- Keep the entry that was stored last, under a member of `index`.
local function keep(member, record)
    call('HSET', entries, int(state.seq), record)
    call('ZADD', index, 0, member)
end

local function keep_event(channel, record, suffix)
    keep(channel .. '\1e' .. padded(state.seq) .. suffix, record)
    trim(channel, 1)
end

local function supersede(channel, seq)
    call('HDEL', entries, seq)
    call('ZREM', index, channel .. '\1k' .. padded(tonumber(seq)))
end

local function put(channel, key, packed)
    local name = channel .. '\1' .. key
    local before = call('HGET', keys, name)
    local record = store(packed)
    if before then
        supersede(channel, before)
    else
        state.keyed = state.keyed + 1
    end
    call('HSET', keys, name, int(state.seq))
    keep(channel .. '\1k' .. padded(state.seq), record)
end

-- Remove a key; false if there is none.
local function take_out(channel, key, packed)
    local name = channel .. '\1' .. key
    local before = call('HGET', keys, name)
    if not before then
        return false
    end
    local record = store(packed)
    supersede(channel, before)
    call('HDEL', keys, name)
    state.keyed = state.keyed - 1
    keep_event(channel, record, 'r')
    return true
end

-- Returns the answer for a channel that is finished, or nil.
local function finished(channel)
    local _, reason = ending(channel)
    if reason then
        return {'finished', reason}
    elseif call('HEXISTS', ends, channel) == 1 then
        forget_end(channel)  -- it is too old, but would count again beside a new event
    end
    return nil
end

-- Forget a lease that was ended and holds nothing any more.
local function released(holder)
    if call('HGET', leases, holder) == '-1' then
        local prefix = '[' .. holder .. '\1'
        if #call('ZRANGEBYLEX', held, prefix, prefix .. '\255', 'LIMIT', 0, 1) == 0 then
            call('HDEL', leases, holder)
        end
    end
end

local commands = {}

function commands.tip()
    return {'tip', int(state.epoch), int(state.seq)}
end

function commands.append(channel, packed, kind, key, holder)
    local refused = finished(channel)
    if refused then
        return refused
    end
    if holder ~= '' and call('HGET', produced, channel) ~= holder then
        return {'taken'}
    end
    if kind == 'passing' then
        store(packed)
    elseif kind == 'key' then
        if string.sub(channel, 1, 1) ~= bounds.internal
            and call('HEXISTS', keys, channel .. '\1' .. key) == 0 then
            local from, to = range(channel, 'k')
            if call('ZLEXCOUNT', index, from, to) >= state.max_keys then
                return {'full', int(state.max_keys)}
            end
        end
        put(channel, key, packed)
    else
        keep_event(channel, store(packed), '')
    end
    return stored()
end

function commands.remove(channel, key, packed)
    return finished(channel) or (take_out(channel, key, packed) and stored() or {'nothing'})
end

function commands.finish(channel, packed, reason, holder)
    local refused, producer = finished(channel), call('HGET', produced, channel)
    if refused or (holder ~= '' and producer ~= holder) then
        return {'nothing'}
    end
    local record = store(packed)
    call('HSET', ends, channel, int(state.seq) .. ' ' .. #reason .. ' ' .. reason .. record)
    call('ZADD', endings, int(now), channel)
    if producer and producer ~= '' then
        call('HSET', produced, channel, '')
        call('ZREM', held, producer .. '\1p' .. channel)
        local length = length_of(channel)
        note(channel, length, length)
        if length > 0 then
            call('ZADD', done, int(state.seq), channel)
        end
        released(producer)
    end
    return stored()
end

function commands.reopen(channel)
    if not finished(channel) then
        return {'nothing'}
    end
    forget_end(channel)
    return {'reopened'}
end
