"""Bytes the engine can open by name, gone when they are closed.

On Linux an anonymous file in memory; elsewhere a temporary file.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def infile(data: memoryview) -> Iterator[str]:
    """The path under which `data` can be read while the block runs."""
    if sys.platform == "linux":
        with _in_memory(data) as path:
            yield path
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name


@contextmanager
def _in_memory(data: memoryview) -> Iterator[str]:
    assert sys.platform == "linux"  # noqa: S101  # tells the type checker, too
    descriptor = os.memfd_create("insert", os.MFD_CLOEXEC)
    try:
        rest = data
        while rest:  # one write takes at most 2 GiB, and may take less
            rest = rest[os.write(descriptor, rest) :]
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
