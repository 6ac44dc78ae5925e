"""Index of a stored history: ``series.json``, made from its parts and hashed like them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from datafeeds.ohlcv_disk import place, read_file
from datafeeds.ohlcv_journal import JOURNAL_NAME
from datafeeds.ohlcv_parts import PART_SUFFIX, Part, SeriesFormat, decode
from datafeeds.ohlcv_spans import minus, overlap, union
from glow_bt.errors import DamagedPartError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from datafeeds.series import SeriesKey

__all__ = [
    "INDEX_NAME",
    "PartFacts",
    "SeriesIndex",
    "hash_of",
    "part_files",
    "read_part",
    "rebuilt_index",
    "refuse_moved",
]

INDEX_NAME = "series.json"
_PART = re.compile(rf"\d{{8}}T\d{{6}}Z{re.escape(PART_SUFFIX)}")


class PartFacts(NamedTuple):
    """What the index says of a part.

    Attributes:
        rows: how many values it holds.
        sha256: hash of the file.
        first: stamp of the first value, None if there are none.
        last: stamp of the last value.
    """

    rows: int
    sha256: str
    first: int | None
    last: int | None


@dataclass
class SeriesIndex:
    """What a history consists of.

    Attributes:
        form: what all parts have in common.
        settled: spans that were asked and answered.
        parts: facts on each block's part, by the block's number.
    """

    form: SeriesFormat
    settled: tuple[range, ...] = ()
    parts: dict[int, PartFacts] = field(default_factory=dict)

    def settled_in(self, number: int) -> tuple[range, ...]:
        """Return the settled spans of a block."""
        return overlap(self.settled, [self.form.grid.block(number)])

    def enter(self, number: int, part: Part, data: bytes) -> None:
        """Note a part and its bytes; one without settled spans is struck."""
        block = self.form.grid.block(number)
        self.settled = union((*minus(self.settled, [block]), *part.settled))
        if part.settled:
            stamps = part.stamps[[0, -1]].tolist() if len(part.stamps) else [None, None]
            self.parts[number] = PartFacts(len(part.stamps), hash_of(data), *stamps)
        else:
            self.parts.pop(number, None)

    def stamps(self) -> tuple[int, int] | None:
        """Return the stamps of the first and the last value, None if there are none."""
        first = [facts.first for facts in self.parts.values() if facts.first is not None]
        last = [facts.last for facts in self.parts.values() if facts.last is not None]
        return (min(first), max(last)) if first else None

    def to_bytes(self) -> bytes:
        """Return the index as it lies on the disk."""
        facts: dict[str, object] = {
            **self.form.to_json(),
            "settled": [[span.start, span.stop] for span in self.settled],
            "parts": {
                self.form.grid.file_name(number): self.parts[number]._asdict()
                for number in sorted(self.parts)
            },
        }
        facts["sha256"] = hash_of(_canonical(facts))
        return json.dumps(facts, indent=1).encode() + b"\n"

    def save(self, folder: Path) -> None:
        """Write it, durably; the folder's parts must be there already."""
        place(folder / INDEX_NAME, self.to_bytes())

    @classmethod
    def load(cls, folder: Path) -> SeriesIndex | None:
        """Read a folder's index; None if nothing is sealed yet.

        Raises:
            DamagedPartError: if it is damaged, or missing beside parts that no writer is sealing.
        """
        path = folder / INDEX_NAME
        try:
            data = read_file(path)
        except FileNotFoundError:
            # The first seal places parts first; a journal is there until it is through.
            if not part_files(folder) or (folder / JOURNAL_NAME).exists():
                return None
            if path.exists():
                return cls.load(folder)
            raise DamagedPartError(path, "it is missing") from None
        try:
            facts = json.loads(data)
            intact = facts.pop("sha256") == hash_of(_canonical(facts))
            form = SeriesFormat.from_json(facts)
            settled = tuple(
                range(start, stop, form.grid.step_ms) for start, stop in facts["settled"]
            )
            parts = {
                _number(form, name): PartFacts(**part) for name, part in facts["parts"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedPartError(path, str(error) or repr(error)) from error
        index = cls(form, settled, parts)
        if not intact or data != index.to_bytes():
            raise DamagedPartError(path, "its content does not match its hash")
        return index


def hash_of(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def part_files(folder: Path) -> list[Path]:
    """Return the files in a folder that are named like parts, sorted."""
    return sorted(path for path in folder.glob(f"*{PART_SUFFIX}") if _PART.fullmatch(path.name))


def read_part(path: Path, data: bytes, form: SeriesFormat) -> Part:
    """Read the bytes of a part that must be of a certain history.

    Raises:
        DamagedPartError: if it is damaged or of another history.
    """
    found, part = decode(data, path)
    if found != form:
        what = " ".join(filter(None, found.key))
        raise DamagedPartError(
            path, f"it is of {what if found.key != form.key else 'another grid'}"
        )
    return part


def refuse_moved(found: SeriesFormat, key: SeriesKey, folder: Path) -> None:
    """Refuse the files of another history.

    Raises:
        StoreError: if the key is another.
    """
    if found.key != key:
        raise StoreError(
            f"expected the history {' '.join(filter(None, key))} in {folder}, found that of "
            f"{' '.join(filter(None, found.key))}; the folder was moved or renamed: put it back"
        )


def rebuilt_index(folder: Path, form: SeriesFormat) -> SeriesIndex:
    """Make an index from a folder's parts, one at a time.

    Raises:
        DamagedPartError: at the first that is damaged.
    """
    index = SeriesIndex(form)
    for path in part_files(folder):
        data = read_file(path)
        part = read_part(path, data, form)
        index.enter(form.grid.block_of(part.settled[0].start), part, data)
    return index


def _canonical(facts: Iterable[object]) -> bytes:
    return json.dumps(facts, sort_keys=True).encode()


def _number(form: SeriesFormat, name: str) -> int:
    number = form.grid.number_in(name)
    if number is None:
        raise ValueError(f"{name} is no part of this grid")
    return number
