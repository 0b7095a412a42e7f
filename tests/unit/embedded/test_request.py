"""Unit: the words of a query string are sorted into settings, parameters and transport."""

import pytest

from shared.embedded.clickhouse_front.refusal import NOT_IMPLEMENTED, SYNTAX_ERROR, Refusal
from shared.embedded.clickhouse_front.request import read

CONNECT_WORDS = (
    "client_protocol_version=54405&session_id=s&wait_end_of_query=1&enable_http_compression=1"
    "&send_progress_in_http_headers=1&cancel_http_readonly_queries_on_client_close=1"
)


def test_words_that_speak_about_the_transport_are_no_settings() -> None:
    request = read(f"{CONNECT_WORDS}&max_threads=2&database=d&param_a=1", {}, b"SELECT 1")
    assert request.settings == {"max_threads": "2"}
    assert request.parameters == {"a": "1"}
    assert request.database == "d"


def test_an_empty_parameter_is_kept() -> None:
    assert read("param_a=", {}, b"SELECT {a:String}").parameters == {"a": ""}


def test_a_query_in_the_address_comes_before_the_body() -> None:
    request = read("query=INSERT+INTO+t+FORMAT+CSV", {}, b"1,2\n")
    assert request.statement.data == memoryview(b"1,2\n")


@pytest.mark.parametrize(
    ("words", "header", "sql", "expected"),
    [
        ("default_format=JSON", "CSV", b"SELECT 1 FORMAT TSV", "TSV"),
        ("default_format=JSON", "CSV", b"SELECT 1", "JSON"),
        ("", "CSV", b"SELECT 1", "CSV"),
        ("", "", b"SELECT 1", "TabSeparated"),
    ],
)
def test_the_nearest_word_about_the_format_counts(
    words: str, header: str, sql: bytes, expected: str
) -> None:
    assert read(words, {"x-clickhouse-format": header}, sql).format == expected


def test_a_setting_whose_name_is_sql_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        read("max_threads%3D1%2C+readonly=0", {}, b"SELECT 1")
    assert refused.value.code == SYNTAX_ERROR


@pytest.mark.parametrize("word", ["compress=1", "decompress=1"])
def test_clickhouse_own_compression_is_refused_rather_than_misread(word: str) -> None:
    with pytest.raises(Refusal) as refused:
        read(word, {}, b"SELECT 1")
    assert refused.value.code == NOT_IMPLEMENTED


def test_a_query_id_cannot_add_a_header() -> None:
    assert read("query_id=a%0D%0Ab", {}, b"SELECT 1").query_id == "a??b"


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT {a:String}\r\n'
    b'--x\r\nContent-Disposition: form-data; name="param_a"\r\n\r\n\xc3\xbc\r\n--x--\r\n'
)
FORM_HEADERS = {"content-type": "multipart/form-data; boundary=x"}


def test_long_parameters_may_come_as_a_form() -> None:
    request = read("database=d", FORM_HEADERS, FORM)
    assert request.statement.sql == b"SELECT {a:String}"
    assert request.parameters == {"a": "ü"}


def test_a_file_in_a_form_is_refused() -> None:
    body = FORM.replace(b'name="param_a"', b'name="t"; filename="t.csv"')
    with pytest.raises(Refusal) as refused:
        read("", FORM_HEADERS, body)
    assert refused.value.code == NOT_IMPLEMENTED
