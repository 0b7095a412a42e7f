-- Rows go onto the spend stream many to an entry, for an entry costs more than a row; so they are
-- counted beside it.
local function write_rows(stream, count, fields)
  if #fields > 0 then
    redis.call('XADD', stream, '*', unpack(fields))
    redis.call('INCRBY', count, #fields / 2)
  end
end
