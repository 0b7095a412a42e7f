"""An answer that is an error, in ClickHouse's own terms: a code, a status, a sentence."""

NOT_IMPLEMENTED = 48
UNKNOWN_TABLE = 60
SYNTAX_ERROR = 62
UNKNOWN_DATABASE = 81
TIMEOUT_EXCEEDED = 159
MEMORY_LIMIT_EXCEEDED = 241
CANNOT_DECOMPRESS = 271
TOO_LARGE_BODY = 307  # TOO_MANY_BYTES: the nearest code ClickHouse has
ACCESS_DENIED = 497
AUTHENTICATION_FAILED = 516
STD_EXCEPTION = 1001  # what ClickHouse reports for an error that is not its own

# ClickHouse's HTTPHandler maps codes to statuses; these are the ones our clients tell apart.
_STATUS_BY_CODE = {
    NOT_IMPLEMENTED: 501,
    UNKNOWN_TABLE: 404,
    SYNTAX_ERROR: 400,
    UNKNOWN_DATABASE: 404,
    TIMEOUT_EXCEEDED: 408,
    MEMORY_LIMIT_EXCEEDED: 507,
    CANNOT_DECOMPRESS: 400,
    TOO_LARGE_BODY: 413,
    ACCESS_DENIED: 403,
    AUTHENTICATION_FAILED: 403,
}


class Refusal(Exception):
    """Raised anywhere between reading a request and the engine's answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        return _STATUS_BY_CODE.get(self.code, 500)

    def body(self, version: str) -> bytes:
        """The text the real server writes; clients read the code's name out of it."""
        text = self.message if self.message.startswith("Code: ") else self._framed()
        return f"{text} (version {version})\n".encode(errors="backslashreplace")

    def _framed(self) -> str:
        return f"Code: {self.code}. DB::Exception: {self.message}"
