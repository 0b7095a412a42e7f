"""What running as root changes: Postgres refuses it, so it runs as `nobody`.

That user must be able to read the program and to enter the folders above its data. Where it cannot
(a virtual environment or a data directory below a closed home), the program is copied and the data
are put to a place of ours that it can reach. No folder of the user's is opened for others.
"""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

REACHABLE_PLACE = Path("/var/lib/ollm-gateway")
TRIAL_LIMIT_SECONDS = 30
UNPRIVILEGED_NAME = "nobody"


@dataclass(frozen=True, slots=True)
class Account:
    uid: int
    gid: int

    def can_run(self, *command: str | Path) -> bool:
        """Tried out rather than derived from mode bits: it may hang on lists of access rights."""
        try:
            tried = subprocess.run(  # noqa: S603  # the commands are our own
                command,
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                cwd="/",
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TRIAL_LIMIT_SECONDS,
                check=False,
            )
        except PermissionError:
            return False
        return tried.returncode == 0

    def can_enter(self, folder: Path) -> bool:
        return self.can_run("/bin/sh", "-c", 'cd "$1"', "sh", folder)


def account_for_postgres() -> Account | None:
    """None unless we are root: then Postgres runs as we do."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(UNPRIVILEGED_NAME)
    return Account(entry.pw_uid, entry.pw_gid)


def cluster_for(data_dir: Path, account: Account | None, place: Path = REACHABLE_PLACE) -> Path:
    """Where the Postgres data belonging to `data_dir` are: inside, if they can be reached there.

    Otherwise a link inside says where. Deleting the data directory thus ends its Postgres data,
    too: a new one at the same path gets a new place.
    """
    inside = data_dir / "postgres"
    if inside.is_symlink():
        return inside.readlink()
    if account is None or account.can_enter(data_dir):
        return inside
    outside = _reachable(place) / f"postgres-{uuid4().hex}"
    inside.symlink_to(outside)
    return outside


def binaries_for(package: Path, account: Account | None, place: Path = REACHABLE_PLACE) -> Path:
    """The folder of Postgres' programs that the account can run."""
    binaries = package / "pginstall" / "bin"
    if account is None or account.can_run(binaries / "postgres", "--version"):
        return binaries
    # Named after the program's age, so that an upgrade makes a new copy.
    copy = _reachable(place) / f"programs-{(binaries / 'postgres').stat().st_mtime_ns}"
    if not copy.exists():
        _copy_with_libraries(package, copy)
    return copy / package.name / "pginstall" / "bin"


def _copy_with_libraries(package: Path, copy: Path) -> None:
    """Both folders, side by side: the programs look for libpq in the one beside theirs."""
    fresh = Path(mkdtemp(dir=copy.parent))
    fresh.chmod(0o755)
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():  # on macOS the libraries lie inside the package
            shutil.copytree(folder, fresh / folder.name, symlinks=True)
    try:
        fresh.rename(copy)
    except OSError:  # somebody else was faster; theirs is as good
        shutil.rmtree(fresh)
        if not copy.exists():
            raise


def _reachable(place: Path) -> Path:
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    return place
