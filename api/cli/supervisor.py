"""Runs a whole gateway on one machine: servers, release, processes; mends what dies, drains at the end."""

import asyncio
import shlex
import signal
import socket
from collections.abc import Callable, Mapping

import httpx
import msgspec

from api.cli import quickstart
from api.cli.child import Child, Command, tail
from api.cli.fleet import Fleet
from api.cli.formation import DRAIN_ORDER, SERVERS, Formation, Options, child_environment
from api.cli.orphans import PidRecord, end_orphans
from api.cli.ready import Ready, remove_ready, write_ready
from api.cli.secrets import Secrets, keep, load_or_make
from api.cli.servers import Servers
from shared.clock import Clock
from shared.valkey.inspect import live_processes, open_store

BACKLOG = 2048
"""Connections that may wait while an API process is being replaced."""
RELEASE_SECONDS = 300.0
"""Migrations of a large ledger take their time; a hanging store must still be reported."""
MINT_SECONDS = 60.0
"""It takes less than one; a machine that starts everything at once may be slow."""
READY_SECONDS = 60.0
DEATHS_BEFORE_READY = 3
"""A process that ends so often before the first answer has a fault that waiting will not mend."""
POLL_SECONDS = 0.05
SETTLE_SECONDS = 10.0
"""How long a rolled process may take to show up before the former one is let go anyway."""


class StartFailed(Exception):
    """The gateway could not be brought up; the message says what to look at."""


class _Stopped(Exception):
    """The way out of the task group after a signal; not a failure."""


class Supervisor:
    """One run, from the first server's start to the last process's end."""

    def __init__(
        self,
        options: Options,
        *,
        inherited: Mapping[str, str],
        secrets: Secrets,
        drain_seconds: float,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._inherited = inherited
        self._secrets = secrets
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._say = say
        self._listeners: dict[str, socket.socket] = {}
        self._servers = Servers(options.data_dir, inherited, clock, self._changed)
        self._fleet = Fleet(clock, self._changed)
        self._record = PidRecord(options.data_dir)
        self._ready: Ready | None = None
        self._stop = asyncio.Event()
        self._roll = asyncio.Event()

    async def run(self) -> None:
        """Returns once a signal has asked for the end and all is drained.

        Raises StartFailed, in a group. Whatever happens, no process is left behind.
        """
        self._hear_signals()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._live(group))
                await self._stop.wait()
                raise _Stopped  # noqa: TRY301 - a task group is left by an exception alone
        except* _Stopped:
            self._say("draining: each process ends what it has accepted")
        finally:
            await self._drain()

    async def _live(self, group: asyncio.TaskGroup) -> None:
        await asyncio.to_thread(self._end_orphans)
        # Ours, not the children's: while one is replaced, connections wait instead of failing.
        self._listen()
        await self._servers.start()
        group.create_task(self._servers.watch())
        formation = self._formation()
        if self._options.simulator:
            await self._mint(formation.mint())
            self._fleet.add(formation.simulator(self._listeners["simulator"].fileno()), group)
        await self._release(formation.release())
        api_key = await self._quickstart_key()
        for command in formation.gateway(self._listeners["api"].fileno()):
            self._fleet.add(command, group)
        await self._until_ready()
        self._announce(api_key)
        await self._roll_when_asked()

    async def _drain(self) -> None:
        # 1. The address is withdrawn before it stops answering.
        self._ready = None
        remove_ready(self._options.data_dir)
        # 2. Ours are closed first: with the last API process, new connections are refused.
        for listener in self._listeners.values():
            listener.close()
        try:
            # 3. Who accepts requests ends first, while those who answer them still run.
            await self._fleet.stop("release")
            for role in DRAIN_ORDER:
                await self._fleet.stop(role)
        finally:
            # 4. The stores last: until here somebody may have something to write.
            await self._servers.stop()
        # 5. Nobody is left to be found.
        self._record.clear()

    def _end_orphans(self) -> None:
        """Blocks; a signal meanwhile is heard afterwards, when they are gone all the same."""
        remove_ready(self._options.data_dir)
        orphans = self._record.orphans()
        if orphans:
            roles = ", ".join(dict.fromkeys(orphan.role for orphan in orphans))
            self._say(f"ending what a killed `gateway up` left behind: {roles}")
        end_orphans(orphans)

    def _listen(self) -> None:
        host, port = self._options.host, self._options.port
        try:
            self._listeners["api"] = _listener(host, port)
        except OSError as error:
            raise StartFailed(f"cannot listen on {host} port {port}: {error.strerror}") from error
        if self._options.simulator:
            self._listeners["simulator"] = _listener("127.0.0.1", 0)

    def _formation(self) -> Formation:
        environment = child_environment(
            self._inherited,
            addresses=self._servers.addresses,
            secrets=self._secrets,
            simulator_url=self._simulator_url(),
            data_dir=self._options.data_dir,
        )
        return Formation(self._options, environment, self._drain_seconds)

    async def _mint(self, command: Command | None) -> None:
        if command is not None:
            await self._run(command, MINT_SECONDS)

    async def _release(self, command: Command) -> None:
        written = command.log.stat().st_size if command.log.exists() else 0
        await self._run(command, RELEASE_SECONDS)
        for line in command.log.read_text(errors="replace")[written:].splitlines():
            if line.startswith("note: "):
                self._say(line)

    async def _run(self, command: Command, seconds: float) -> None:
        """Until it has ended by itself. Raises StartFailed."""
        child = await Child.start(command, self._clock)
        try:
            async with asyncio.timeout(seconds):
                status = await child.ended()
        finally:
            child.kill()
        if status != 0:
            raise StartFailed(f"{command.role} ended with status {status}:\n{tail(command.log)}")

    async def _quickstart_key(self) -> str:
        kept = load_or_make(self._options.data_dir)
        api_key = await quickstart.api_key(self._servers.addresses["DATABASE_URL"], kept.api_key)
        if api_key != kept.api_key:
            keep(self._options.data_dir, msgspec.structs.replace(kept, api_key=api_key))
        return api_key

    async def _until_ready(self) -> None:
        url = f"{_url(self._listeners['api'])}/health/readiness"
        try:
            async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient() as client:
                while not await _answers(client, url):
                    self._check_deaths()
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise StartFailed(
                f"not ready after {READY_SECONDS:.0f} s; see {self._options.data_dir / 'logs'}"
            ) from error

    def _check_deaths(self) -> None:
        command = self._fleet.failing(DEATHS_BEFORE_READY)
        if command is not None:
            raise StartFailed(f"{command.role} keeps ending:\n{tail(command.log)}")

    def _announce(self, api_key: str) -> None:
        addresses = self._servers.addresses
        self._ready = Ready(
            base_url=_url(self._listeners["api"]),
            api_key=api_key,
            master_key=self._secrets.master_key,
            simulator_url=self._simulator_url(),
            valkey_url=addresses["VALKEY_URL"],
            database_url=addresses["DATABASE_URL"],
            clickhouse_url=addresses["CLICKHOUSE_URL"],
            pids=self._pids(),
        )
        write_ready(self._options.data_dir, self._ready)
        self._say(_welcome(self._ready))

    async def _roll_when_asked(self) -> None:
        """SIGHUP: new processes for old ones, api first, then worker; accepted requests end."""
        while True:
            await self._roll.wait()
            self._roll.clear()
            await self._fleet.roll(("api", "worker"), self._settled)
            self._say("rolled: every api and worker process is a new one")

    async def _settled(self, child: Child) -> None:
        """Waits until the process has entered itself into the register of live processes."""
        try:
            async with (
                asyncio.timeout(SETTLE_SECONDS),
                open_store(self._servers.addresses["VALKEY_URL"]) as store,
            ):
                while child.running:
                    entries = (await live_processes(store)).values()
                    if any(entry.pid == child.pid for entry in entries):
                        return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            self._say(f"process {child.pid} has not registered itself; going on")

    def _changed(self) -> None:
        pids = self._pids()
        self._record.write(pids)
        if self._ready is not None:
            self._ready = msgspec.structs.replace(self._ready, pids=pids)
            write_ready(self._options.data_dir, self._ready)

    def _pids(self) -> dict[str, list[int]]:
        """In the order in which orphans of ours should be ended."""
        pids = {**self._fleet.pids(), **self._servers.pids()}
        return {role: pids[role] for role in (*DRAIN_ORDER, *SERVERS) if role in pids}

    def _simulator_url(self) -> str | None:
        return _url(self._listeners["simulator"]) if self._options.simulator else None

    def _hear_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end)
        loop.add_signal_handler(signal.SIGINT, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._roll.set)

    def _end(self) -> None:
        if self._stop.is_set():
            # Asked twice: whoever asks will not wait.
            self._fleet.kill()
        self._stop.set()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _url(listener: socket.socket) -> str:
    """Where a client on this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared only
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        answer = await client.get(url, timeout=2.0)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


def _welcome(ready: Ready) -> str:
    body = '{"model":"sim_echo","stream":true,"messages":[{"role":"user","content":"hello"}]}'
    curl = shlex.join(
        [
            *("curl", "-N", f"{ready.base_url}/v1/chat/completions"),
            *("-H", f"Authorization: Bearer {ready.api_key}"),
            *("-H", "Content-Type: application/json", "-d", body),
        ]
    )
    return f"\nThe gateway is ready.\n\n  base URL  {ready.base_url}/v1\n  API key   {ready.api_key}\n\nTry it:\n\n{curl}\n"
