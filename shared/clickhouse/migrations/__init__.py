"""Numbered ClickHouse statements, applied in order by `shared.clickhouse.migrate`."""
