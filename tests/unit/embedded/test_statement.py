"""Unit: what a statement is, where its data begin, which format it asks for."""

import pytest

from shared.embedded.clickhouse_front.refusal import NOT_IMPLEMENTED, SYNTAX_ERROR, Refusal
from shared.embedded.clickhouse_front.statement import parse


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (b"SELECT 1", None),
        (b"SELECT 1 FORMAT JSON", "JSON"),
        (b"select 1 format JSONEachRow ;", "JSONEachRow"),
        (b"SELECT 1 FORMAT CSV SETTINGS max_threads = 1", "CSV"),
        (b"SELECT 1 AS format", None),
        (b"SELECT format FROM t", None),
        (b"SELECT format FROM t FORMAT TSV", "TSV"),
        (b"SELECT 1 -- FORMAT JSON", None),
        (b"SELECT 1 /* FORMAT JSON */", None),
        (b"SELECT ' FORMAT JSON'", None),
        (b"SELECT 'it''s \\' FORMAT JSON'", None),
        (b"SELECT * FROM (SELECT 1 FORMAT JSON)", None),
        (b"SELECT {x:String} FORMAT Native", "Native"),
    ],
)
def test_the_format_is_the_one_at_the_end(sql: bytes, expected: str | None) -> None:
    assert parse(sql).format == expected


@pytest.mark.parametrize(
    ("sql", "returns_rows"),
    [
        (b"SELECT 1", True),
        (b"(SELECT 1)", True),
        (b"-- a remark\n WITH 1 AS x SELECT x", True),
        (b"show tables", True),
        (b"CREATE TABLE t (a Int8) ENGINE = Memory", False),
        (b"insert into t values (1)", False),
        (b"/* first */ DROP TABLE t", False),
    ],
)
def test_a_statement_knows_whether_it_returns_rows(sql: bytes, returns_rows: bool) -> None:
    assert parse(sql).returns_rows is returns_rows


@pytest.mark.parametrize(
    ("sql", "data", "rewritten"),
    [
        (
            b"INSERT INTO t FORMAT Native\n\x00;\xff'",
            b"\x00;\xff'",
            b"INSERT INTO t FROM INFILE '/f' FORMAT Native",
        ),
        (
            b"INSERT INTO `a'b`.t (a, format) SETTINGS async_insert=0 FORMAT CSV 1,2\n",
            b"1,2\n",
            b"INSERT INTO `a'b`.t (a, format) FROM INFILE '/f' SETTINGS async_insert=0 FORMAT CSV",
        ),
        (b"INSERT INTO t FORMAT CSV", b"", b"INSERT INTO t FROM INFILE '/f' FORMAT CSV"),
        (b"INSERT INTO t FORMAT CSV;\r\n\n1", b"\n1", b"INSERT INTO t FROM INFILE '/f' FORMAT CSV"),
    ],
)
def test_an_insert_with_data_reads_them_from_a_file(
    sql: bytes, data: bytes, rewritten: bytes
) -> None:
    statement = parse(sql)
    assert statement.data is not None
    assert bytes(statement.data) == data
    assert statement.reading_from("/f") == rewritten


@pytest.mark.parametrize(
    "sql",
    [
        b"INSERT INTO t VALUES (1, ' FORMAT CSV'), (2, ';')",
        b"INSERT INTO t SELECT 1 AS format",
        b"INSERT INTO t FROM INFILE '/x' FORMAT CSV",
    ],
)
def test_an_insert_without_data_of_its_own_stays_as_it_is(sql: bytes) -> None:
    statement = parse(sql)
    assert statement.data is None
    assert statement.sql == sql


@pytest.mark.parametrize("sql", [b"", b" ; ", b"-- nothing", b"SELECT 1; SELECT 2"])
def test_there_must_be_exactly_one_statement(sql: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse(sql)
    assert refused.value.code == SYNTAX_ERROR


def test_a_semicolon_may_end_the_statement() -> None:
    assert parse(b"SELECT ';' ;; -- done").verb == "SELECT"


def test_data_for_a_selecting_insert_are_refused_rather_than_lost() -> None:
    with pytest.raises(Refusal) as refused:
        parse(b"INSERT INTO t SELECT a FROM input('a Int8') FORMAT CSV\n1\n")
    assert refused.value.code == NOT_IMPLEMENTED
