"""Our counting beside the library's own: the same counts must give the same text."""

import re

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from shared import tally

BOUNDS = (0.1, 0.5, 1, 10)


def text(registry: CollectorRegistry) -> str:
    """Without the library's notes of when a metric was made."""
    shown = generate_latest(registry).decode()
    return re.sub(r"# (HELP|TYPE) \w+_created .*\n|\w+_created.*\n", "", shown)


def counted(kit) -> str:
    registry = CollectorRegistry()
    requests = kit.Counter("requests_total", "Requests.", ["route", "status"], registry=registry)
    requests.labels("/a", 200).inc()
    requests.labels("/a", 200).inc(2)
    requests.labels('/b"\n', 404).inc(0.5)
    kit.Counter("never", "Never counted.", registry=registry)
    kit.Counter("plain_total", "Without labels.", registry=registry).inc(3)
    depth = kit.Gauge("depth", "Depth.", registry=registry)
    depth.inc()
    depth.inc(4)
    depth.dec(2)
    kit.Gauge("size", "Size.", ["lane"], registry=registry).labels("x").set(7.5)
    seconds = kit.Histogram("seconds", "Time.", ["lane"], buckets=BOUNDS, registry=registry)
    for value in (0.0, 0.1, 0.100001, 1, 5, 10, 11, 1e9):
        seconds.labels("x").observe(value)
    kit.Histogram("whole", "No labels.", buckets=BOUNDS, registry=registry).observe(0.2)
    return text(registry)


def test_a_gauge_of_one_role_is_shown_by_who_has_set_it() -> None:
    registry = CollectorRegistry()
    size = tally.Gauge("size", "Size.", of_one_role=True, registry=registry)
    assert "\nsize " not in text(registry)
    size.set(0)
    assert "\nsize 0.0\n" in text(registry)


def test_what_is_shown_is_what_the_library_would_show() -> None:
    assert counted(tally) == counted(prometheus_client)


def test_a_name_is_registered_once() -> None:
    registry = CollectorRegistry()
    tally.Counter("requests_total", "Requests.", registry=registry)
    with pytest.raises(ValueError, match="requests"):
        tally.Gauge("requests", "Requests.", registry=registry)


def test_labels_must_be_as_many_as_their_names() -> None:
    requests = tally.Counter("requests", "Requests.", ["route"], registry=CollectorRegistry())
    with pytest.raises(ValueError, match="route"):
        requests.labels("/a", "200")
