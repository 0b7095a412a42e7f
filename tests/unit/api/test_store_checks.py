import asyncio

from api import store_checks
from api.store_checks import StoreChecks
from shared.clock import StillClock


class Store:
    def __init__(self, *, is_up: bool = True) -> None:
        self.is_up = is_up
        self.asked = 0

    async def check(self) -> bool:
        self.asked += 1
        await asyncio.sleep(0)
        return self.is_up


async def test_one_look_serves_everyone_during_its_second():
    store, clock = Store(), StillClock()
    checks = StoreChecks({"postgres": store.check}, clock)
    seen = await asyncio.gather(*(checks.look() for _ in range(20)))
    assert all(look == {"postgres": True} for look in seen)
    assert store.asked == 1
    clock.advance(0.9)
    await checks.look()
    assert store.asked == 1
    store.is_up = False
    clock.advance(0.1)
    assert await checks.look() == {"postgres": False}


async def test_a_store_that_hangs_is_away_and_does_not_hide_the_others(monkeypatch):
    monkeypatch.setattr(store_checks, "CHECK_SECONDS", 0.02)

    async def hangs() -> bool:
        await asyncio.sleep(3600)
        return True

    checks = StoreChecks({"postgres": hangs, "valkey": Store().check}, StillClock())
    assert await checks.look() == {"postgres": False, "valkey": True}
