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
    ours: list[Contender] = [Ours(size, "float32"), Ours(size, "float64")]
    others: list[Contender] = [Ours(size, "float32", tails=False)]
    if compiled:
        others.append(Ours(size, "float32", compiled=True))
    others += [OurModule(size), BareProducts(size)]
    return [*ours, *_peers(size, compiled), *others, RowLoop(size)]


def missing_peers() -> list[str]:
    """Return the peers that are not installed."""
    return [name for name in PEERS if find_spec(name) is None]


def _peers(size: Size, compiled: bool) -> Iterator[Contender]:
    for name in PEERS:
        if name in missing_peers():
            continue
        library = cast("Library", import_module(f"benchmarks.speed.{name}_peer"))
        for variant in library.VARIANTS:
            yield Peer(", ".join(filter(None, (name, variant))), library, variant, size)
        if compiled:
            first = library.VARIANTS[0]
            yield Peer(f"{name}, compiled", library, first, size, compiled=True)
            label = f"{name}, patched and compiled"
            yield Peer(label, library, first, size, compiled=True, patched=True)
