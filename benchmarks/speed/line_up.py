"""Everything that is compared, as far as it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from benchmarks.speed.bare import BareProducts
from benchmarks.speed.contender import Contender, Size
from benchmarks.speed.ours import OurModule, Ours
from benchmarks.speed.peer import Library, Peer
from benchmarks.speed.row_loop import RowLoop

PEERS = ("normflows", "nflows", "zuko")


def contenders(size: Size, *, compiled: bool = True) -> list[Contender]:
    """Return ours, the peers that are installed, and what else to compare with.

    Args:
        size: that each is built to.
        compiled: whether training is also timed through torch.compile.
    """
    ways = (False, True) if compiled else (False,)
    ours: list[Contender] = [
        Ours(size, "float32"),
        Ours(size, "float64"),
        *(Ours(size, "float32", compiled=True) for way in ways if way),
    ]
    others = [Ours(size, "float32", tails=False), OurModule(size), BareProducts(size)]
    return [*ours, *(peer for way in ways for peer in _peers(size, way)), *others, RowLoop(size)]


def missing_peers() -> list[str]:
    """Return the peers that are not installed."""
    return [name for name in PEERS if find_spec(name) is None]


def _peers(size: Size, compiled: bool) -> Iterator[Contender]:
    for name in PEERS:
        if name in missing_peers():
            continue
        library = import_module(f"benchmarks.speed.{name}_peer")
        for variant in library.VARIANTS:
            words = [name, variant, "compiled" if compiled else ""]
            label = ", ".join(word for word in words if word)
            yield Peer(label, cast("Library", library), variant, size, compiled=compiled)
