-- What a command that writes does before and after its work.

local status, name = look()
local command = ARGV[3]
if status == 'foreign' then
    return {status, name}
elseif status == 'damaged' and command ~= 'append' then
    return {status}
elseif status ~= 'ours' then
    create()
elseif bounds.given then
    settle(bounds.given)
end
local before = state.seq
local answer = commands[command](unpack(ARGV, 4))
bound(state.seq - before)
save()
return answer
