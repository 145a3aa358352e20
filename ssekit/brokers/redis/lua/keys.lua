-- What every script begins with: the log's keys, and what the arguments are.
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
local FIELD = 'ssekit'  -- of each stream entry and of the log: the mark of what is ours

local call = redis.call
local run = ARGV[1]
