"""Timeouts and retries: how long a provider may take, and how often it is asked."""

import msgspec


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds."""

    connect: float = 5.0
    first_byte: float = 60.0
    """From the send to the first event (stream) or the whole answer's head."""
    total: float = 600.0
    """For the whole job: retries and fallback included."""


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    attempts: int = 2
    """Sends per provider, the first included, before the next provider is asked."""
    backoff_seconds: float = 0.1
    """Doubles each time, with full jitter."""
    max_backoff_seconds: float = 5.0
