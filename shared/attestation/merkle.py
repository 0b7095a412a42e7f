"""The Merkle tree of RFC 6962 over SHA-256: hashes, roots, proofs and their verification.

A full subtree is named by its level and its position there: (0, 5) is the sixth leaf, (3, 1) the
root over the leaves 8 to 15. Every other subtree that a root or a proof needs is made of those.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

EMPTY_ROOT = hashlib.sha256(b"").digest()
HASH_BYTES = 32


class Place(NamedTuple):
    """Of a full subtree."""

    level: int
    position: int


Nodes = Mapping[Place, bytes]
Span = tuple[int, int]
"""Leaves, from the first one on and up to another."""


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactRange:
    """A tree of some size by the roots of its full subtrees, from the left: it can grow."""

    def __init__(self, size: int = 0, roots: Iterable[bytes] = ()) -> None:
        """`roots` are the hashes at `places(0, size)`."""
        self.size = size
        self._roots = list(roots)

    def append(self, leaf: bytes) -> list[tuple[Place, bytes]]:
        """Adds a leaf by its hash; every full subtree that it completes, itself first."""
        grown, position = leaf, self.size
        made = [(Place(0, position), grown)]
        while position % 2:
            position //= 2
            grown = node_hash(self._roots.pop(), grown)
            made.append((Place(len(made), position), grown))
        self._roots.append(grown)
        self.size += 1
        return made

    def root(self) -> bytes:
        return _fold(self._roots) if self._roots else EMPTY_ROOT


def places(begin: int, end: int) -> list[Place]:
    """The full subtrees that the leaves from `begin` up to `end` consist of, from the left.

    `begin` is a multiple of the smallest power of two that is not below `end - begin`, as it is of
    every subtree of a tree.
    """
    found = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        found.append(Place(level, begin >> level))
        begin += 1 << level
    return found


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The subtrees whose roots prove that a leaf is in a tree (RFC 6962 §2.1.1)."""
    found, begin, end = [], 0, size
    while end - begin > 1:
        middle = begin + _half(end - begin)
        if index < middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((begin, middle))
            begin = middle
    return found[::-1]


def consistency_spans(first: int, second: int) -> list[Span]:
    """The subtrees whose roots prove that a tree is the beginning of another (RFC 6962 §2.1.2)."""
    found, begin, end = [], 0, second
    while 0 < first < end:
        middle = begin + _half(end - begin)
        if first <= middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((begin, middle))
            begin = middle
    if begin:  # else the verifier has it: it is the first tree's root
        found.append((begin, end))
    return found[::-1]


def proof_of(spans: Iterable[Span], nodes: Nodes) -> list[bytes]:
    """The roots of these subtrees. `nodes` has all their `places`."""
    return [_fold([nodes[place] for place in places(*span)]) for span in spans]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether the leaf of this hash is at this index of the tree (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes([leaf, *proof]):
        return False
    here, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if here % 2 or here == last:
            found = node_hash(sibling, found)
            while here and here % 2 == 0:  # no sibling at these levels: the tree's right edge
                here, last = here >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        here, last = here >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether the first tree is the beginning of the second one (RFC 9162 §2.1.4.2)."""
    if not 0 <= first <= second or not _are_hashes(proof):
        return False
    if first in (0, second):
        expected = EMPTY_ROOT if first == 0 else second_root
        return not proof and first_root == expected
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)  # a full subtree of the second tree: the proof leaves it out
    return bool(path) and _meets_both(first - 1, second - 1, path) == (first_root, second_root)


def _meets_both(here: int, last: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The two roots that a path leads to; None where it has the wrong length."""
    while here % 2:
        here, last = here >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if here % 2 or here == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while here and here % 2 == 0:
                here, last = here >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        here, last = here >> 1, last >> 1
    return (old, new) if last == 0 else None


def _fold(roots: Sequence[bytes]) -> bytes:
    """The root over neighbouring subtrees, of which none is larger than the one before it."""
    found = roots[-1]
    for left in reversed(roots[:-1]):
        found = node_hash(left, found)
    return found


def _half(size: int) -> int:
    """The largest power of two below it."""
    return 1 << ((size - 1).bit_length() - 1)


def _are_hashes(found: Iterable[bytes]) -> bool:
    return all(len(one) == HASH_BYTES for one in found)
