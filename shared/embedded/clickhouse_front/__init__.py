"""An HTTP server with ClickHouse's interface in front of the engine that comes as a library.

No package carries the ClickHouse server, but one carries its engine. This front answers what an
unmodified clickhouse-connect asks, sync and async: statements, settings, query parameters, formats
and compressed inserts.

What it leaves out: sessions, users and passwords, external data, cancelling a statement when the
client goes away. A whole body and a whole result are held in memory. It serves development and
tests on one machine; production speaks to a real ClickHouse.
"""
