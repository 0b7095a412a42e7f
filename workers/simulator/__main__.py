"""Starts the simulator: `python -m workers.simulator --port 0` prints its address and serves.

`python -m workers.simulator mint DIR` makes the keys and roots of a synthetic TEE that outlives it.
"""

import argparse
import json
import logging
import socket
import ssl
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import uvicorn

from shared.clock import SystemClock
from workers.simulator.app import Simulator
from workers.simulator.connection import Connection
from workers.simulator.ledger import Ledger, LedgerFile
from workers.simulator.pace import Pace, Pacemaker
from workers.simulator.tee.certificate import Identity
from workers.simulator.tee.pki import Pki
from workers.simulator.tee.tee import Tee

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75  # as providers' front ends keep theirs
MINT_HELP = """
Makes the keys and roots of a synthetic TEE, which prove nothing, and keeps them: `--tee DIR` starts a
simulator with them, so that its machines and their roots stay the same, and `--tls` has it serve https
with the key that they attest. DIR gets roots.json (for GATEWAY_ATTESTATION_ROOTS and `gateway receipts
verify --roots`), ca.pem (what clients trust under --tls) and keys.json (private). A DIR that holds one
is refused.
"""
GRACE_SECONDS = 1  # a stalled stream must not hold up the end
LEDGER_CALLS = 500_000  # about 250 MB when full


def main() -> None:
    if sys.argv[1:2] == ["mint"]:
        _mint(sys.argv[2:])
    else:
        _serve(_options())


def _mint(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.simulator mint", description=MINT_HELP)
    parser.add_argument("directory", metavar="DIR", type=Path, help="is made where it is not there")
    directory = parser.parse_args(arguments).directory
    try:
        Pki.mint(SystemClock().now()).save(directory)
    except OSError as error:
        parser.error(str(error))


def _serve(options: argparse.Namespace) -> None:
    listener = _listener(options)
    with ExitStack() as stack:
        file = None
        if options.ledger is not None:
            file = stack.enter_context(closing(LedgerFile(options.ledger)))
        clock = SystemClock()
        pki = Pki.mint(clock.now()) if options.tee is None else Pki.load(options.tee)
        app = Simulator(
            ledger=Ledger(clock=clock, capacity=options.ledger_calls, file=file),
            pacemaker=Pacemaker(options.pace),
            tee=Tee(pki, clock, ends_tls=options.tls),
            clock=clock,
            api_keys=options.api_key,
        )
        server = uvicorn.Server(_config(app, pki.tls if options.tls else None))
        _announce(listener, "https" if options.tls else "http")
        server.run(sockets=[listener])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--fd", type=int, help="an inherited listening socket, instead")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--first-token-ms", type=float, default=0.0)
    parser.add_argument("--tokens-per-second", type=float, default=0.0, help="0: no limit")
    parser.add_argument("--api-key", action="append", default=[], help="default: any key")
    parser.add_argument("--ledger", type=Path, help="file that outlives the process")
    parser.add_argument("--ledger-calls", type=int, default=LEDGER_CALLS, help="kept in memory")
    parser.add_argument(
        "--tee", type=Path, help="a directory of `mint`; default: new keys each start"
    )
    parser.add_argument(
        "--tls", action="store_true", help="serve https, with the key that is attested"
    )
    options = parser.parse_args()
    try:
        options.pace = _pace(options)
    except msgspec.ValidationError as error:
        parser.error(str(error))
    return options


def _pace(options: argparse.Namespace) -> Pace:
    return Pace().changed(
        {
            "latency_ms": options.latency_ms,
            "first_token_ms": options.first_token_ms,
            "tokens_per_second": options.tokens_per_second,
        }
    )


def _listener(options: argparse.Namespace) -> socket.socket:
    if options.fd is not None:
        return socket.socket(fileno=options.fd)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    return socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)


def _announce(listener: socket.socket, scheme: str) -> None:
    """One line of JSON, once connections are accepted."""
    host, port = listener.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    line = {"action": "simulator_listening", "url": f"{scheme}://{where}:{port}"}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _config(app: Simulator, tls: Identity | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ssl_context_factory=None if tls is None else lambda *_: _ssl_context(tls),
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_level=logging.WARNING,
        proxy_headers=False,
        server_header=False,
        headers=[("x-simulator", "true")],
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _ssl_context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Python's ssl reads keys from files only.
    with tempfile.NamedTemporaryFile() as file:
        file.write((identity.key_pem + identity.pem).encode())
        file.flush()
        context.load_cert_chain(file.name)
    return context


if __name__ == "__main__":
    main()
