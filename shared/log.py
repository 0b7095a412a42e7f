"""Structured logs: one JSON object a line, a sentence, an `action` word and ids.

Set up once by each entry point. One processor refuses the fields that must never be written, so
that a careless call cannot leak a key or a prompt.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

NEVER_LOGGED = frozenset(
    "api_key authorization body completion content cookie credential headers key master_key"
    " messages output password payload prompt secret token".split()
)
REDACTED = "[redacted]"
SECRETS = re.compile(
    r"sk-[A-Za-z0-9_-]{8,}|vck_[A-Za-z0-9]{8,}|(?<=Bearer )[^\s\"']+|(?<=://)[^/@\s]*:[^/@\s]*(?=@)"
)
"""Keys of ours and of providers, bearer credentials, and passwords inside URLs."""


def set_up(role: str, level: str = "info") -> None:
    """Configures structlog for this process. `role` is bound to every line."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(role=role)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def redact(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Removes what must never be written, by field name and by the look of the value."""
    for field, value in event.items():
        if field.lower() in NEVER_LOGGED:
            event[field] = REDACTED
        elif isinstance(value, str):
            event[field] = SECRETS.sub(REDACTED, value)
    return event
