"""Valkey, Postgres and the ClickHouse engine, started from wheels: no Docker, no root."""
