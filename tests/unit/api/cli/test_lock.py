"""One supervisor per data directory."""

import os
from pathlib import Path

import pytest

from api.cli.lock import AlreadyRunning, DataDirLock


def test_a_second_holder_is_refused_and_told_of_the_first(tmp_path: Path):
    with (
        DataDirLock(tmp_path),
        pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"),
        DataDirLock(tmp_path),
    ):
        pass


def test_a_lock_that_was_let_go_can_be_taken(tmp_path: Path):
    with DataDirLock(tmp_path):
        pass
    with DataDirLock(tmp_path):
        pass
