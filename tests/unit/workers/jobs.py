"""Jobs for tests, as a worker holds them; no queue is behind them."""

from typing import Any

import httpx

from shared.clock import Clock, StillClock
from shared.document import Breaker as BreakerSettings
from shared.document import Provider
from shared.ids import new_id
from shared.job import JobHeader, encode_header
from shared.price import Price
from shared.timeouts import Retries
from shared.valkey.keys import ShardKeys
from shared.valkey.lane import Claim
from workers.held import HeldJob
from workers.inference.attempt import Attempt
from workers.inference.breaker import Breaker
from workers.inference.routing import Route
from workers.providers.openai import OpenAIProvider

ADMITTED_AT = 1_700_000_000.0
INPUT_ESTIMATE = 11


def a_header(**changes: Any) -> JobHeader:
    values: dict[str, Any] = {
        "request_id": new_id(),
        "reply_to": "api-1",
        "lane": "default",
        "tenant": "default",
        "user": "someone",
        "model": "sim_echo",
        "asked_model": "sim_echo",
        "config_hash": "0" * 16,
        "episode_id": new_id(),
        "admitted_at": ADMITTED_AT,
        "queue_seconds": 60.0,
        "total_seconds": 600.0,
    }
    return JobHeader(**{**values, **changes})


def a_claim(header: JobHeader, **changes: Any) -> Claim:
    values: dict[str, Any] = {
        "keys": ShardKeys(0),
        "lane": header.lane,
        "entry": b"1-1",
        "deliveries": 1,
        "token": b"1:worker-1",
        "request_id": header.request_id,
        "raw_header": encode_header(header),
        "sealed_body": b"",
    }
    return Claim(**{**values, **changes})


def a_held_job(*, claim: dict[str, Any] | None = None, **header: Any) -> HeldJob:
    made = a_header(**header)
    return HeldJob(a_claim(made, **(claim or {})), made, started_at=ADMITTED_AT)


def a_route(price: Price, clock: Clock | None = None) -> Route:
    settings = Provider(base_url="http://provider.invalid/v1")
    return Route(
        provider=OpenAIProvider("sim", settings, base_url=settings.base_url, api_key="key"),
        model="sim_echo",
        tier="",
        upstream_model="sim/echo",
        price=price,
        price_key="sim:sim/echo",
        timeouts=httpx.Timeout(5.0).as_dict(),
        retries=Retries(),
        breaker=Breaker(BreakerSettings(), clock or StillClock()),
    )


def an_attempt(
    header: JobHeader | None = None, *, price: Price, clock: Clock | None = None
) -> Attempt:
    clock = clock or StillClock(ADMITTED_AT)
    return Attempt(
        header or a_header(),
        a_route(price, clock),
        tier="",
        number=1,
        claimed_at=ADMITTED_AT + 0.5,
        input_estimate=INPUT_ESTIMATE,
        clock=clock,
    )
