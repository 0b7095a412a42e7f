import redis, asyncpg
from sqlalchemy.engine import make_url
async def test_a(database_url, valkey_db, clickhouse_url):
    c=await asyncpg.connect(database_url.replace("+asyncpg","")); await c.execute("create table t(a int)"); 
    r=redis.Redis.from_url(valkey_db); assert r.dbsize()==0; r.set("x",1); r.close(); await c.close()
async def test_b(database_url, valkey_db):
    c=await asyncpg.connect(database_url.replace("+asyncpg","")); await c.execute("create table t(a int)"); await c.close()
    r=redis.Redis.from_url(valkey_db); assert r.dbsize()==0; r.close()
def test_c(database_url): assert "test_" in database_url
