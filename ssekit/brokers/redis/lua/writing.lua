-- What a command that writes does before and after its work.

local status, name = look()
local command = ARGV[4]
if status == 'foreign' then
    return {status, name}
elseif status == 'damaged' and command ~= 'append' then
    return {status}
elseif status ~= 'ours' then
    create()
elseif ARGV[3] ~= '' then
    settle(cjson.decode(ARGV[3]))
end
local before = state.seq
local answer = commands[command](unpack(ARGV, 5))
bound(state.seq - before)
save()
return answer
