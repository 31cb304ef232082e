-- The requests of a scenario and a summary to be parsed. Two arguments: bytes of a POST body, 0 for a GET; and whether each
-- request carries a trace context and a timeout of its own ("traced"). Those are made beforehand, so wrk stays quick.
-- wrk counts answers above 399 as errors of status; answers below 400 that are not 200 fall short in length.
local traced, turn = {}, 0

function init(args)
  local size = tonumber(args[1])
  if size > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("p", size)
    wrk.headers["Content-Type"] = "application/octet-stream"
  end
  if args[2] == "traced" then
    wrk.headers["Accept"] = "application/json"
    wrk.headers["User-Agent"] = "bench/1"
    for number = 1, 1024 do
      wrk.headers["traceparent"] = string.format("00-%032x-%016x-00", number * 7919, number * 104729)
      wrk.headers["x-envoy-upstream-rq-timeout-ms"] = tostring(1000 + number % 8000)
      traced[number] = wrk.format()
    end
    request = next_traced
  end
end

function next_traced()
  turn = turn % #traced + 1
  return traced[turn]
end

function done(summary)
  local e = summary.errors
  print(string.format(
    'BENCH {"requests": %d, "microseconds": %d, "bytes": %d, "errors": '
      .. '{"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}',
    summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout))
end
