-- Reads the request, asks the upstream by subrequests, writes the answer. It keeps no books, checks no key and counts nothing.
local json = require "cjson.safe"

local AT_ONCE = 64

local function all(ids)
  local reply = ngx.location.capture("/all", { method = ngx.HTTP_DELETE, body = json.encode({ ids = ids }) })
  local body = reply.status == 200 and json.decode(reply.body)
  if not body then
    return nil
  end
  local deleted, results = {}, {}
  for _, record in ipairs(body.successfulRecords) do
    deleted[record.id] = true
  end
  for index, id in ipairs(ids) do
    results[index] = { id = id, status = deleted[id] and "deleted" or "failed" }
  end
  return results
end

local function each(ids)
  local results = {}
  for first = 1, #ids, AT_ONCE do
    local calls = {}
    for index = first, math.min(first + AT_ONCE - 1, #ids) do
      calls[#calls + 1] = { "/one/" .. ids[index], { method = ngx.HTTP_DELETE } }
    end
    for offset, reply in ipairs({ ngx.location.capture_multi(calls) }) do
      local id = ids[first + offset - 1]
      results[#results + 1] = { id = id, status = reply.status < 300 and "deleted" or "failed" }
    end
  end
  return results
end

ngx.req.read_body()
local asked = json.decode(ngx.req.get_body_data() or "")
if not asked then
  return ngx.exit(400)
end
local results = (asked.connection == "support" and all or each)(asked.ids)
if not results then
  return ngx.exit(502)
end
local count = 0
for _, result in ipairs(results) do
  count = count + (result.status == "deleted" and 1 or 0)
end
ngx.header.content_type = "application/json"
ngx.print(json.encode({
  connection = asked.connection,
  requested = #asked.ids,
  deleted = count,
  failed = #asked.ids - count,
  results = results,
}))
