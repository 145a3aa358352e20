-- How processes show that they are alive, and what each of them holds.

local function is_live(holder)
    local beats = call('HGET', leases, holder)
    return beats and beats ~= '-1'
end

local function member_of(channel, name)
    return #channel .. ':' .. channel .. name
end

function commands.beat(holder, first)
    if first == '1' then
        call('HSETNX', leases, holder, 0)
    end
    if not is_live(holder) then
        return {'nothing'}
    end
    call('HINCRBY', leases, holder, 1)
    return {'renewed'}
end

function commands.end_lease(holder, beats)
    if is_live(holder) and call('HGET', leases, holder) ~= beats then
        return {'nothing'}
    end
    if call('HEXISTS', leases, holder) == 1 then
        call('HSET', leases, holder, -1)
        released(holder)
    end
    return {'ended'}
end

function commands.produce(channel, holder)
    local refused = finished(channel)
    if refused then
        return refused
    end
    local producer = call('HGET', produced, channel)
    if producer and producer ~= '' then
        return {'busy'}
    end
    if not is_live(holder) then
        return {'dead'}
    end
    if string.sub(channel, 1, 1) ~= bounds.internal then
        state.events = state.events - length_of(channel)
    end
    call('ZREM', lengths, channel)
    call('ZREM', done, channel)
    call('HSET', produced, channel, holder)
    call('ZADD', held, 0, holder .. '\1p' .. channel)
    return {'produced'}
end

-- After the holder: a channel, a name and the packed entry of each member.
function commands.join(holder, ...)
    if not is_live(holder) then
        return {'dead'}
    end
    local members = {...}
    for n = 1, #members, 3 do
        local channel, name, packed = members[n], members[n + 1], members[n + 2]
        local member = member_of(channel, name)
        local before = call('HEXISTS', present, member) == 1
            and call('HGET', keys, channel .. '\1' .. name)
        if call('ZADD', held, 0, holder .. '\1m' .. member) == 1 then
            call('HINCRBY', present, member, 1)
        end
        local record = before and call('HGET', entries, before)
        if not record or string.match(record, '^%d+ %d+ (.*)$') ~= packed then
            put(channel, name, packed)
        end
    end
    return {'joined'}
end

function commands.leave(holder, ...)
    local members = {...}
    for n = 1, #members, 3 do
        local channel, name, packed = members[n], members[n + 1], members[n + 2]
        local member = member_of(channel, name)
        if call('ZREM', held, holder .. '\1m' .. member) == 1
            and call('HINCRBY', present, member, -1) == 0 then
            call('HDEL', present, member)
            take_out(channel, name, packed)
        end
    end
    released(holder)
    return {'left'}
end
