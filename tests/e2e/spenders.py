"""Many clients that spend one budget as fast as they are let: each on a connection of its own."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

from api.cli.ready import Ready

ANSWER_SECONDS = 60.0


class Spenders:
    """They ask one model with one key; what they were answered is counted by status and code."""

    def __init__(self, ready: Ready, key: str, model: str) -> None:
        parts = urlsplit(ready.base_url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "one two"}]})
        self._request = (
            "POST /v1/chat/completions HTTP/1.1\r\n"
            f"host: {self._host}\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()
        self.answers: Counter[tuple[int, str]] = Counter()

    async def run(self, clients: int, until: Callable[[], bool]) -> None:
        """Each client asks again until `until` holds."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._spend(until))

    async def _spend(self, until: Callable[[], bool]) -> None:
        while not until():
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    reader, writer = await asyncio.open_connection(self._host, self._port)
                    try:
                        await self._ask(reader, writer, until)
                    finally:
                        writer.transport.abort()
            except (OSError, asyncio.IncompleteReadError):
                self.answers[0, "connection lost"] += 1
                await asyncio.sleep(0.1)

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        until: Callable[[], bool],
    ) -> None:
        while not until():
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            status = int(head[9:12])
            code = "" if status == 200 else json.loads(body)["error"]["code"]
            self.answers[status, code] += 1
            if status != 200:
                await asyncio.sleep(0.05)

    @property
    def bought(self) -> int:
        return self.answers[200, ""]
