-- The request of a scenario (its one argument: bytes of a POST body, 0 for a GET) and a summary to be parsed.
-- wrk counts answers above 399 as errors of status; answers below 400 that are not 200 fall short in length.
function init(args)
  local size = tonumber(args[1])
  if size > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("p", size)
    wrk.headers["Content-Type"] = "application/octet-stream"
  end
end

function done(summary)
  local e = summary.errors
  print(string.format(
    'BENCH {"requests": %d, "microseconds": %d, "bytes": %d, "errors": '
      .. '{"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}',
    summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout))
end
