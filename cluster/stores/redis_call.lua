-- The end of the script: make the call, give the hints, answer.
local refusal = guard_lost()
local answer
if refusal then
  answer = refusal
else
  answer = calls[ARGV[1]]()
  if finally then finally() end
end
write_gathered()
jobs.ring()
if readied then ring('ready') end
return cmsgpack.pack(answer or false)
