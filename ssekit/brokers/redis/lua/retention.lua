-- What the log forgets, a bounded amount in each call.

local AT_ONCE = 1000  -- events that one call drops of a channel
local EXPIRED_AT_ONCE = 20 + WHOLE  -- channels and ends that one call looks at
local SPARE = 16  -- events that a full log has room for once it has given up some

local function length_of(channel)
    local from, to = range(channel, 'e')
    return call('ZLEXCOUNT', index, from, to)
end

-- Note that a channel has `change` more events than before, `length` now.
local function note(channel, change, length)
    local holder = call('HGET', produced, channel)
    local internal = string.sub(channel, 1, 1) == bounds.internal
    if not internal and (not holder or holder == '') then
        state.events = state.events + change
    end
    if length == 0 then
        call('ZREM', internal and removals or oldest, channel)
        call('ZREM', lengths, channel)
        call('ZREM', done, channel)
        return
    end
    local from, to = range(channel, 'e')
    local first = seq_of(call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, 1)[1])
    call('ZADD', internal and removals or oldest, int(first), channel)
    if not internal and not holder then
        -- Of channels that are as long, the one with the oldest event comes first.
        call('ZADD', lengths, string.format('%.17g', length + 1 - first % 2 ^ 32 / 2 ^ 32), channel)
    end
end

-- Note that a channel, which had some events before, has one more.
local function note_another(channel)
    local holder = call('HGET', produced, channel)
    if string.sub(channel, 1, 1) == bounds.internal then
        return
    elseif not holder then
        call('ZINCRBY', lengths, 1, channel)
    end
    if not holder or holder == '' then
        state.events = state.events + 1
    end
end

-- Forget the oldest events of a channel, and return how many; they are not noted yet.
local function forget(channel, many)
    local from, to = range(channel, 'e')
    local members = call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, math.min(many, AT_ONCE))
    if #members == 0 then
        return 0
    end
    local seqs = {}
    for n, member in ipairs(members) do
        seqs[n] = int(seq_of(member))
    end
    call('ZREM', index, unpack(members))
    call('HDEL', entries, unpack(seqs))
    call('ZADD', trimmed, seqs[#seqs], channel)
    state.trims = 1
    local over = call('ZCARD', trimmed) - bounds.channels_remembered
    if over > 0 then
        local popped = call('ZPOPMIN', trimmed, over)
        state.floor = math.max(state.floor, tonumber(popped[#popped]))
    end
    return #members
end

local function drop(channel, many)
    local dropped = forget(channel, many)
    note(channel, -dropped, length_of(channel))
end

-- Bound a channel by its number of events, of which `change` are new.
local function trim(channel, change)
    local length, dropped = length_of(channel), 0
    local most, too_many = state.history, state.history + late(state.history)
    if call('HEXISTS', produced, channel) == 1 then
        most, too_many = bounds.most_produced, bounds.most_produced
    end
    if length > too_many then
        dropped = forget(channel, length - most)
    elseif change == 1 and length > 1 then
        return note_another(channel)
    end
    note(channel, change - dropped, length - dropped)
end

-- Make a channel that is finished one like others, which `history` and `capacity` bound.
local function forget_end(channel)
    call('HDEL', ends, channel)
    call('ZREM', endings, channel)
    call('HDEL', produced, channel)
    call('ZREM', done, channel)
    trim(channel, 0)
end

-- Drop events that were stored before a time, of channels with the seqs of their oldest events.
local function expire(channels, before, many)
    for _ = 1, many do
        local first = call('ZRANGE', channels, 0, 0, 'WITHSCORES')
        if not first[1] or time_of(tonumber(first[2])) >= before then
            break
        end
        drop(first[1], 1)
    end
end

-- Bound the log as a whole, after so many entries were stored.
local function bound(stored)
    local room = math.max(state.capacity, state.history)
    if state.events > room then
        room = room - math.min(math.floor(room / 1000), SPARE)
    end
    for _ = 1, EXPIRED_AT_ONCE do
        if state.events <= room then
            break
        end
        local finished = call('ZRANGE', done, 0, 0)[1]
        if finished then
            drop(finished, AT_ONCE)
        else
            drop(call('ZREVRANGE', lengths, 0, 0)[1], 1)
        end
    end
    if state.max_age then
        expire(oldest, expiry(), EXPIRED_AT_ONCE)
    end
    -- One call may store many removals, and no fewer have to go.
    expire(removals, now - bounds.internal_kept * 1000, EXPIRED_AT_ONCE + stored)
    local due = now - (bounds.end_remembered + (state.max_age or 0)) * 1000
    local found = call('ZRANGEBYSCORE', endings, '-inf', '(' .. int(due), 'LIMIT', 0, EXPIRED_AT_ONCE)
    for _, channel in ipairs(found) do
        if ending(channel) then
            call('ZADD', endings, int(now), channel)
        else
            forget_end(channel)
        end
    end
end
