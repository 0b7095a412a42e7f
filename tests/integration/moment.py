"""The moment at which a test's clock stands, until the test moves it."""

from datetime import UTC, datetime

NOW = datetime(2026, 1, 1, tzinfo=UTC)
