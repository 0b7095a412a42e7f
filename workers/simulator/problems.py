"""The errors the simulator answers with on purpose, and what OpenAI calls each."""

from dataclasses import dataclass

# Types as the OpenAI API returns them for these statuses.
TYPE_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
SERVER_ERROR = "server_error"


@dataclass(frozen=True, slots=True)
class Problem:
    """What goes into an error envelope."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    type: str | None = None

    @property
    def kind(self) -> str:
        return self.type or TYPE_BY_STATUS.get(self.status, SERVER_ERROR)


class Refused(Exception):
    """A request that a real provider would not serve either."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
    ) -> None:
        super().__init__(message)
        self.problem = Problem(status, message, code=code, param=param, type=type)


def envelope(problem: Problem) -> dict[str, object]:
    """OpenAI's error body."""
    return {
        "error": {
            "message": problem.message,
            "type": problem.kind,
            "param": problem.param,
            "code": problem.code,
        }
    }
