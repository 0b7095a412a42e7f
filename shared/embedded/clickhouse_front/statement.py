"""What the front must know about a SQL statement: its verb, its format, and where its data begin.

The engine parses SQL; this only finds the words that decide how a request is carried out. It reads
tokens outside brackets, quotes and comments, and of an INSERT only up to its data, which may be
binary.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from shared.embedded.clickhouse_front.refusal import NOT_IMPLEMENTED, SYNTAX_ERROR, Refusal

_TOKEN = re.compile(
    rb"""
      (?P<blank>  \s++ | --[^\n]*+ | \#[ !][^\n]*+ | /\*.*?\*/ )
    | (?P<quoted> '(?:[^'\\]|\\.|'')*+' | "(?:[^"\\]|\\.|"")*+" | `(?:[^`\\]|\\.|``)*+` )
    | (?P<word>   [A-Za-z_][A-Za-z0-9_]*+ )
    | (?P<sign>   . )
    """,
    re.VERBOSE | re.DOTALL,
)
# Between the format's name and the data: blanks and one line end (ParserInsertQuery.cpp).
_BEFORE_DATA = re.compile(rb"[ \t\f]*+;?[ \t\f]*+\r?\n?")

# Statements without a result. The server names a format only for those that have one.
_SILENT_VERBS = frozenset(
    {
        *("INSERT", "DELETE", "UPDATE", "TRUNCATE", "OPTIMIZE"),
        *("CREATE", "ALTER", "DROP", "UNDROP", "RENAME", "EXCHANGE", "MOVE", "ATTACH", "DETACH"),
        *("SET", "USE", "SYSTEM", "GRANT", "REVOKE"),
    }
)


@dataclass(frozen=True, slots=True)
class Statement:
    sql: bytes
    """Without the data, where the statement carries data of its own."""
    verb: str
    format: str | None
    data: memoryview | None = None
    """What follows `INSERT … FORMAT name`, in that format."""
    tail_at: int = 0
    """Where the SETTINGS or FORMAT clause of an INSERT with data begins."""

    @property
    def returns_rows(self) -> bool:
        return self.verb not in _SILENT_VERBS

    def reading_from(self, path: str) -> bytes:
        """The same INSERT, taking its data from a file.

        The engine does not parse Native data pasted into the SQL; from a file it does.
        """
        quoted = path.replace("\\", "\\\\").replace("'", "\\'")
        infile = f"FROM INFILE '{quoted}' ".encode()
        return self.sql[: self.tail_at] + infile + self.sql[self.tail_at :]


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    """As written; of a quoted one only its first quote."""
    start: int
    end: int

    def means(self, *words: str) -> bool:
        return self.text.upper() in words


def parse(text: bytes) -> Statement:
    """A `Refusal` with code 62 when there is no statement, or more than one."""
    tokens = _outer_tokens(text)
    first = next(tokens, None)
    if first is None or first.text == ";":
        raise Refusal(SYNTAX_ERROR, "Syntax error: Empty query. (SYNTAX_ERROR)")
    if first.means("INSERT"):
        return _insert(text, tokens)
    rest = list(tokens)
    _refuse_a_second_statement(rest)
    verb = "SELECT" if first.text == "(" else first.text.upper()
    return Statement(sql=text, verb=verb, format=_own_format(rest))


def _insert(text: bytes, tokens: Iterator[_Token]) -> Statement:
    plain = Statement(sql=text, verb="INSERT", format=None)
    tail: _Token | None = None
    for token in tokens:
        if token.means("VALUES", "INFILE"):
            return plain
        if token.means("SELECT", "WITH"):
            return _selecting_insert(text, plain, tokens)
        if token.means("SETTINGS"):
            tail = token
        name = next(tokens, None) if token.means("FORMAT") else None
        if name is not None:
            return _insert_with_data(text, tail or token, name)
    return plain


def _selecting_insert(text: bytes, plain: Statement, tokens: Iterator[_Token]) -> Statement:
    """The data of `INSERT … SELECT … FROM input() FORMAT name` have no way into the engine."""
    for token in tokens:
        name = next(tokens, None) if token.means("FORMAT") else None
        if name is not None and text[name.end :].strip(b"; \t\r\n"):
            raise Refusal(NOT_IMPLEMENTED, "INSERT … SELECT with data. (NOT_IMPLEMENTED)")
    return plain


def _insert_with_data(text: bytes, tail: _Token, name: _Token) -> Statement:
    gap = _BEFORE_DATA.match(text, name.end)
    return Statement(
        sql=text[: name.end],
        verb="INSERT",
        format=name.text,
        data=memoryview(text)[gap.end() if gap else name.end :],
        tail_at=tail.start,
    )


def _refuse_a_second_statement(tokens: list[_Token]) -> None:
    """As the server does over HTTP; the engine alone would run them all."""
    ended = False
    for token in tokens:
        if ended and token.text != ";":
            message = "Syntax error (Multi-statements are not allowed). (SYNTAX_ERROR)"
            raise Refusal(SYNTAX_ERROR, message)
        ended = ended or token.text == ";"


def _own_format(tokens: list[_Token]) -> str | None:
    """The word after FORMAT, where nothing but SETTINGS or the end follows it."""
    for at in range(len(tokens) - 2, -1, -1):
        ends = at + 2 == len(tokens) or tokens[at + 2].means(";", "SETTINGS")
        if ends and tokens[at].means("FORMAT"):
            return tokens[at + 1].text
    return None


def _outer_tokens(text: bytes) -> Iterator[_Token]:
    """Tokens outside brackets; a bracket itself counts as outside, what it holds does not."""
    depth = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "blank":
            continue
        sign = match[0] if kind == "sign" else b""
        if sign in (b")", b"]", b"}"):
            depth = max(depth - 1, 0)
        if depth == 0:
            shown = match[0] if kind != "quoted" else match[0][:1]
            yield _Token(shown.decode(errors="replace"), match.start(), match.end())
        if sign in (b"(", b"[", b"{"):
            depth += 1
