-- Looking at the log.  Nothing here writes, and what one call looks at and returns is bounded.

local AT_ONCE = 20  -- entries of the stream that one command fetches, as their size is unknown
local MEMBERS = 2000  -- members of `index` that one call looks at, of all its channels together;
local KEYED_MEMBERS = 5000  -- and those of keys, as long as only their seqs are returned
local RECORDS = 1000  -- records that one command fetches

-- Append seqs with their records to an answer, as far as `bounds.bytes` allows, one at least.
-- Returns how many.
local function fetch(answer, seqs)
    local bytes, fields = 0, {}
    for n, seq in ipairs(seqs) do
        fields[n] = int(seq)
        bytes = bytes + call('HSTRLEN', entries, fields[n])
        if n > 1 and bytes > bounds.bytes then
            fields[n] = nil
            break
        end
    end
    for first = 1, #fields, RECORDS do
        local last = math.min(first + RECORDS - 1, #fields)
        local records = call('HMGET', entries, unpack(fields, first, last))
        for n, record in ipairs(records) do
            answer[#answer + 1] = fields[first + n - 1]
            answer[#answer + 1] = record
        end
    end
    return #fields
end

-- Returns nil for a cursor of this log, and else in a word why it is not one.
local function strange(epoch, seq)
    local last = epoch == int(state.epoch) and state.seq or call('ZSCORE', past, epoch)
    if not last then
        return 'another'
    end
    return tonumber(seq) > tonumber(last) and 'future' or nil
end

local function tip()
    return int(state.epoch) .. '-' .. int(state.seq)
end

-- Returns the seq up to which events of a channel are gone.
local function reached(channel)
    return tonumber(call('ZSCORE', trimmed, channel) or state.floor)
end

-- Returns whether events of a channel after a seq are gone.
local function has_lost(channel, after)
    if reached(channel) > after then
        return true
    end
    if not state.max_age or string.sub(channel, 1, 1) == bounds.internal then
        return false
    end
    local from, to = range(channel, 'e', after)
    local first = call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, 1)[1]
    return first ~= nil and is_expired(seq_of(first))
end

local commands = {}

function commands.tip()
    return {'tip', tip()}
end

function commands.check(epoch, seq)
    return {strange(epoch, seq) or 'valid'}
end

-- Where not all of a channel was looked at, nothing after what was looked at is returned.
function commands.read(epoch, after, limit, ...)
    local why = strange(epoch, after)
    if why then
        return {why}
    end
    after, limit = tonumber(after), tonumber(limit)
    local channels = {...}
    local each = math.max(2, math.floor(MEMBERS / math.max(1, #channels)))
    local horizon, seqs, ended = state.seq, {}, {}
    for _, channel in ipairs(channels) do
        if has_lost(channel, after) then
            return {'trimmed'}
        end
        for _, kind in ipairs({'e', 'k'}) do
            local from, to = range(channel, kind, after)
            local found = call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, each)
            for _, member in ipairs(found) do
                seqs[#seqs + 1] = seq_of(member)
            end
            if #found == each then
                horizon = math.min(horizon, seq_of(found[each]))
            end
        end
        local seq, _, record = ending(channel)
        if seq and seq > after then
            seqs[#seqs + 1] = seq
            ended[seq] = record
        end
    end
    table.sort(seqs)
    local wanted = {}
    for n = 1, math.min(#seqs, limit) do
        if seqs[n] > horizon then
            break
        end
        wanted[n] = seqs[n]
    end
    local answer = {'found', '', ''}
    local got = fetch(answer, wanted)
    for n = 4, #answer, 2 do
        answer[n + 1] = answer[n + 1] or ended[tonumber(answer[n])]
    end
    if got < #wanted or got == limit then
        horizon = wanted[got]
    end
    answer[2], answer[3] = int(horizon), tip()
    return answer
end

-- Returns the seqs of events without a key up to a seq, the newest first, and whether that is all.
local function newest(channels, upto, limit)
    local each = math.max(2, math.floor(MEMBERS / math.max(1, #channels)))
    local seqs, horizon = {}, 0
    for _, channel in ipairs(channels) do
        local from, to = range(channel, 'e')
        local members = call('ZREVRANGEBYLEX', index, '(' .. channel .. '\1e' .. padded(upto) .. 's',
            from, 'LIMIT', 0, each)
        for _, member in ipairs(members) do
            if string.sub(member, -1) ~= 'r' then
                seqs[#seqs + 1] = seq_of(member)
            end
        end
        if #members == each then
            horizon = math.max(horizon, seq_of(members[each]))
        end
    end
    table.sort(seqs, function(one, other) return one > other end)
    local wanted = {}
    for n = 1, math.min(#seqs, limit) do
        if seqs[n] < horizon then
            break
        end
        wanted[n] = seqs[n]
    end
    return wanted, #wanted < limit and horizon or 0
end

-- Answers with where to go on, 0 for nowhere, and events before a seq, the newest first.
function commands.history(epoch, before, limit, ...)
    local why = epoch ~= '' and strange(epoch, before)
    if why then
        return {why}
    end
    local upto = before == '' and state.seq or tonumber(before) - 1
    local seqs, on = newest({...}, upto, tonumber(limit))
    local answer = {'found', '', int(expiry())}
    local got = fetch(answer, seqs)
    answer[2] = int(got < #seqs and seqs[got] or on)
    return answer
end

local function is_complete(channels)
    for _, channel in ipairs(channels) do
        if has_lost(channel, 0) then
            return false
        end
    end
    return true
end

-- Whether all is still there from the channels' first events on.
function commands.complete(...)
    return {is_complete({...}) and 'complete' or 'incomplete'}
end

local function ends_of(channels)
    local found = {}
    for _, channel in ipairs(channels) do
        local seq, _, record = ending(channel)
        if seq then
            found[#found + 1] = channel
            found[#found + 1] = int(seq)
            found[#found + 1] = record
        end
    end
    return found
end

function commands.ends(...)
    return {'found', ends_of({...})}
end

-- Returns seqs of the newest entries of keys after a seq, oldest first, and where to go on, or 0.
local function keyed(channels, after)
    local each = math.max(2, math.floor(KEYED_MEMBERS / math.max(1, #channels)))
    local seqs, horizon = {}, nil
    for _, channel in ipairs(channels) do
        local from, to = range(channel, 'k', after)
        local members = call('ZRANGEBYLEX', index, from, to, 'LIMIT', 0, each)
        for _, member in ipairs(members) do
            seqs[#seqs + 1] = seq_of(member)
        end
        if #members == each then
            horizon = math.min(horizon or state.seq, seq_of(members[each]))
        end
    end
    table.sort(seqs)
    while horizon and seqs[#seqs] > horizon do
        table.remove(seqs)
    end
    return seqs, horizon or 0
end

local function texts_of(seqs)
    local texts = {}
    for n, seq in ipairs(seqs) do
        texts[n] = int(seq)
    end
    return texts
end

-- All of one moment, but for the records: only some of them are in the answer.
function commands.opening(replay, ...)
    local channels = {...}
    local seqs, more = keyed(channels)
    local count = #seqs
    local events, on = newest(channels, state.seq, tonumber(replay))
    for _, seq in ipairs(events) do
        seqs[#seqs + 1] = seq
    end
    local records = {}
    fetch(records, seqs)
    return {
        'found', tip(), int(expiry()), is_complete(channels) and 1 or 0, ends_of(channels),
        count, int(more), texts_of(seqs), int(on), records,
    }
end

-- The seqs of more keys, of a later moment.
function commands.keyed(after, ...)
    local seqs, more = keyed({...}, tonumber(after))
    return {'found', int(more), texts_of(seqs)}
end

-- Answers with those of the entries that are still there.
function commands.records(...)
    local answer = {'found'}
    fetch(answer, {...})
    return answer
end

-- Append entries of the stream to an answer, as far as a limit and `bounds.bytes` allow, one at
-- least.  `next_some` returns so many after an id, or the first if that is nil.
local function gather(answer, limit, next_some)
    local bytes, last = 0, nil
    limit = tonumber(limit)
    while limit > 0 and bytes < bounds.bytes do
        local some = next_some(last, math.min(limit, AT_ONCE))
        if #some == 0 then
            break
        end
        for _, entry in ipairs(some) do
            answer[#answer + 1] = entry[1]
            answer[#answer + 1] = entry[2][2]
            bytes = bytes + #entry[2][2]
        end
        limit = limit - #some
        last = some[#some][1]
    end
    return answer
end

-- Answers with the log's end, and the newest entries, the newest first.
function commands.recent(limit)
    return gather({'found', tip()}, limit, function(last, count)
        return call('XREVRANGE', stream, last and '(' .. last or '+', '-', 'COUNT', count)
    end)
end

-- Answers with entries after an id, oldest first.
function commands.newer(after, limit)
    return gather({'found'}, limit, function(last, count)
        return call('XRANGE', stream, '(' .. (last or after), '+', 'COUNT', count)
    end)
end

function commands.status(channel)
    local _, reason = ending(channel)
    if reason then
        return {'finished', reason}
    end
    local producer = call('HGET', produced, channel)
    return {producer and producer ~= '' and 'producing' or 'open'}
end

function commands.retention()
    return {'found', unpack(call('HMGET', log, 'history', 'capacity', 'max_keys', 'max_age'))}
end

function commands.leases()
    return {'found', call('HGETALL', leases)}
end

function commands.held(holder)
    local prefix = '[' .. holder .. '\1'
    return {'found', call('ZRANGEBYLEX', held, prefix, prefix .. '\255')}
end

local status, name = look()
if status ~= 'ours' then
    return {status, name}
end
return commands[ARGV[4]](unpack(ARGV, 5))
