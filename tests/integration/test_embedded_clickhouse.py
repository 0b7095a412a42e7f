"""Integration: what unmodified clients ask of ClickHouse's HTTP interface.

The same tests hold for the real server, where CLICKHOUSE_URL names one.
"""

import asyncio
import json
import socket
from decimal import Decimal
from urllib.parse import urlsplit
from uuid import UUID

import clickhouse_connect
import httpx
import lz4.frame
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

# 8 MB: the client starts a block every 2 MB or 65,536 rows, and compresses each by itself.
ROWS = 70_000
WIDE = "x" * 100


@pytest.fixture
def client(clickhouse_url: str):
    client = clickhouse_connect.get_client(dsn=clickhouse_url)
    client.command("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    yield client
    client.close()


@pytest.fixture
def http(clickhouse_url: str):
    """The interface itself, in the test's own database."""
    parts = urlsplit(clickhouse_url)
    login = (parts.username or "default", parts.password or "")
    with httpx.Client(
        base_url=f"{parts.scheme}://{parts.hostname}:{parts.port}/",
        params={"database": parts.path[1:]},
        auth=login,
    ) as http:
        yield http


@pytest.mark.parametrize("codec", ["lz4", "zstd", "gzip", False])
def test_every_row_of_a_large_insert_arrives(clickhouse_url: str, client, codec) -> None:
    writer = clickhouse_connect.get_client(dsn=clickhouse_url, compress=codec)
    rows = [(n, f"{n}{WIDE}") for n in range(ROWS)]
    summary = writer.insert("t", rows, column_names=["a", "b"], settings={"async_insert": 0})
    writer.close()
    assert summary.written_rows == ROWS
    counted = client.query("SELECT count(), sum(a), uniqExact(b) FROM t").first_row
    assert counted == (ROWS, ROWS * (ROWS - 1) // 2, ROWS)


async def test_the_asynchronous_client_inserts_and_reads(clickhouse_url: str, client) -> None:
    reader = await clickhouse_connect.get_async_client(dsn=clickhouse_url)
    await reader.insert("t", [(n, f"ü{WIDE}") for n in range(ROWS)], column_names=["a", "b"])
    asked = "SELECT count() FROM t WHERE b = {b:String}"
    found = await reader.query(asked, parameters={"b": f"ü{WIDE}"})
    assert found.first_row == (ROWS,)
    await reader.close()


async def test_statements_run_side_by_side(clickhouse_url: str) -> None:
    reader = await clickhouse_connect.get_async_client(dsn=clickhouse_url)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(reader.query("SELECT sleep(0.5)"))
    assert loop.time() - began < 1.5  # one after the other would take 2.0
    await reader.close()


def test_settings_of_one_request_do_not_reach_the_next(client) -> None:
    asked = "SELECT getSetting('max_block_size'), getSetting('final')"
    before = client.query(asked).first_row
    own = client.query(asked, settings={"max_block_size": 4711, "final": 1}).first_row
    assert own == (4711, True)
    # More often than there are threads: each of them has its turn.
    assert {client.query(asked).first_row for _ in range(20)} == {before}


def test_what_a_statement_sets_does_not_reach_the_next(http: httpx.Client) -> None:
    name = http.post("/", content="SELECT currentDatabase()").text
    for statement in ("SET max_block_size = 4711", "USE system"):
        assert http.post("/", content=statement).status_code == 200
    asked = "SELECT getSetting('max_block_size') = 4711, currentDatabase()"
    answers = {http.post("/", content=asked).text for _ in range(20)}
    assert answers == {f"false\t{name}"} or answers == {f"0\t{name}"}


@pytest.mark.parametrize(
    "value", ["it's", "back\\slash", "tab\tand\nline", "ü", "", "x" * 20_000], ids=repr
)
def test_query_parameters_arrive_as_they_were_given(client, value: str) -> None:
    """The long one goes as a form: it is too long for an address."""
    assert client.query("SELECT {v:String}", parameters={"v": value}).first_row == (value,)


def test_values_keep_their_types(client) -> None:
    row_id = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
    found = client.query(
        "SELECT toDecimal64('1.000000001', 9), {i:UUID}, [1, 2], map('a', 'b'), NULL",
        parameters={"i": row_id},
    )
    assert found.first_row == (Decimal("1.000000001"), row_id, [1, 2], {"a": "b"}, None)


def test_columns_of_an_empty_result_have_names(client) -> None:
    assert client.query("SELECT * FROM t LIMIT 0").column_names == ("a", "b")


def test_rows_can_be_streamed(client) -> None:
    with client.query_rows_stream("SELECT number FROM numbers(200000)") as rows:
        assert sum(row[0] for row in rows) == 200_000 * 199_999 // 2


def test_text_formats_can_be_inserted(client) -> None:
    client.raw_insert("t", ["a", "b"], b"1,x\n2,y\n", fmt="CSV")
    client.raw_insert("t", ["a", "b"], b'{"a":3,"b":"z;"}\n', fmt="JSONEachRow")
    client.command("INSERT INTO t VALUES (4, 'four'), (5, 'it''s')")
    client.command("INSERT INTO t SELECT number + 6, 'n' FROM numbers(2)")
    assert client.query("SELECT a, b FROM t ORDER BY a").result_rows == [
        (1, "x"),
        (2, "y"),
        (3, "z;"),
        (4, "four"),
        (5, "it's"),
        (6, "n"),
        (7, "n"),
    ]


@pytest.mark.parametrize(
    ("sql", "code", "status"),
    [
        ("SELECT * FROM nowhere", 60, 404),
        ("SELECT * FROM nowhere.t", 81, 404),
        ("SELEKT 1", 62, 400),
        ("SELECT 1; SELECT 2", 62, 400),
        ("", 62, 400),
        ("SELECT sleep(1) SETTINGS max_execution_time = 0.1", 159, 408),
        ("SELECT groupArray(number) FROM numbers(9000000) SETTINGS max_memory_usage = 9000000", 241, 507),
        ("SELECT throwIf(1)", 395, 500),
    ],
)  # fmt: skip
def test_errors_carry_the_engines_code(
    http: httpx.Client, sql: str, code: int, status: int
) -> None:
    answer = http.post("/", content=sql)
    assert answer.headers["x-clickhouse-exception-code"] == str(code)
    assert answer.status_code == status
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert "(version 2" in answer.text


def test_the_client_sees_the_errors_code_and_name(client) -> None:
    with pytest.raises(DatabaseError) as failed:
        client.query("SELECT * FROM nowhere")
    assert (failed.value.code, failed.value.name) == (60, "UNKNOWN_TABLE")


def test_an_unknown_setting_is_an_error(http: httpx.Client) -> None:
    answer = http.post("/", params={"no_such_setting": "1"}, content="SELECT 1")
    assert answer.headers["x-clickhouse-exception-code"] == "115"


def test_answers_carry_the_servers_headers(http: httpx.Client) -> None:
    answer = http.post("/", params={"query_id": "mine"}, content="SELECT 1 FORMAT JSON")
    assert answer.json()["data"] == [{"1": 1}]
    assert answer.headers["x-clickhouse-query-id"] == "mine"
    assert answer.headers["x-clickhouse-timezone"] == "UTC"
    assert answer.headers["x-clickhouse-format"] == "JSON"
    summary = json.loads(answer.headers["x-clickhouse-summary"])
    assert summary["read_rows"] == "1"
    silent = http.post("/", content="CREATE TABLE s (a Int8) ENGINE = Memory")
    assert "x-clickhouse-format" not in silent.headers


def test_the_format_is_chosen_by_the_nearest_word(http: httpx.Client) -> None:
    assert http.post("/", content="SELECT 'a', 1").text == "a\t1\n"
    csv = {"default_format": "CSV"}
    assert http.post("/", params=csv, content="SELECT 'a', 1").text == '"a",1\n'
    assert http.post("/", params=csv, content="SELECT 'a', 1 FORMAT TSV").text == "a\t1\n"
    header = {"X-ClickHouse-Format": "CSV"}
    assert http.post("/", headers=header, content="SELECT 'a', 1").text == '"a",1\n'


def test_a_statement_in_the_address_takes_its_data_from_the_body(client, http) -> None:
    words = {"query": "INSERT INTO t FORMAT CSV"}
    assert http.post("/", params=words, content="1,x\n2,y\n").status_code == 200
    assert client.command("SELECT count() FROM t") == 2


def test_ping_says_ok(http: httpx.Client) -> None:
    answer = http.get("/ping")
    assert (answer.status_code, answer.text) == (200, "Ok.\n")


def test_a_body_cut_inside_a_later_frame_inserts_nothing(client, http: httpx.Client) -> None:
    whole = lz4.frame.compress(b"INSERT INTO t FORMAT CSV\n" + b"1,x\n" * 1000)
    cut = lz4.frame.compress(b"2,y\n" * 1000)[:-9]
    answer = http.post("/", headers={"Content-Encoding": "lz4"}, content=whole + cut)
    assert answer.status_code >= 400
    assert client.command("SELECT count() FROM t") == 0
    http.post("/", headers={"Content-Encoding": "lz4"}, content=whole).raise_for_status()
    assert client.command("SELECT count() FROM t") == 1000


def test_native_data_cut_inside_a_block_insert_nothing(client, http: httpx.Client) -> None:
    data = client.raw_query("SELECT number AS a, 'x' AS b FROM numbers(1000)", fmt="Native")
    answer = http.post("/", content=b"INSERT INTO t FORMAT Native\n" + data[:-3])
    assert answer.status_code >= 400
    assert client.command("SELECT count() FROM t") == 0


def test_a_client_that_leaves_inside_its_body_inserts_nothing(client, clickhouse_url: str) -> None:
    parts = urlsplit(clickhouse_url)
    body = b"INSERT INTO t FORMAT CSV\n1,x\n2,y\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as leaving:
        leaving.sendall(
            f"POST /?database={parts.path[1:]} HTTP/1.1\r\nHost: x\r\n"
            f"Content-Length: {len(body) + 100}\r\n\r\n".encode()
            + body
        )
    assert client.command("SELECT sleep(0.2), count() FROM t")[1] == "0"
