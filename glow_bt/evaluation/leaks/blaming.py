"""From two recordings of the same code to the line that looked ahead."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glow_bt.evaluation.leaks.target import CodeLine
from glow_bt.evaluation.leaks.tracing import Step, differ

__all__ = ["assignment", "blame"]

_MOST_HOPS = 12


@dataclass(frozen=True)
class _Change:
    """A variable that first differs at a step, and the step whose line made it."""

    key: str
    seen: int
    made: int
    whole: bool


def blame(left: list[Step], right: list[Step], output: str) -> CodeLine | None:
    """Return the line that looked ahead, as well as can be found.

    It is the one after which a variable's known part first differs (the output's own column if
    there is one), followed back through the variables that the line uses; or the last one before
    the runs take different ways.

    Args:
        left: steps of a run.
        right: steps of a run with another future.
        output: name of the output that differs.
    """
    common = _common(left, right)
    changes = _changes(left[:common], right[:common])
    found = [c for c in changes.values() if c.whole and not c.key.endswith(":return")]
    own = [c for c in found if c.key.endswith(f"[{output}]")]
    returned = [
        c for c in changes.values() if c.whole and c.key.split(":")[1].startswith("return")
    ]
    chosen = min(own or found or returned, key=lambda change: change.seen, default=None)
    if chosen is None and 0 < common < max(len(left), len(right)):
        chosen = _Change("", common, _before(left, common), whole=True)
    if chosen is None:
        return None
    # Bar by bar a strategy meets an indicator's value; what wrote it is the indicator.
    met = left[min(chosen.seen, len(left) - 1)].bar >= 0 and " lines[" not in chosen.key
    written = assignment(left[chosen.made].where.file, output) if met else None
    return written or left[_followed(chosen, left, changes)].where


def assignment(file: str, output: str) -> CodeLine | None:
    """Return the line that makes an output, by its name alone; None if there is none.

    Args:
        file: where to look.
        output: name of a column, of an indicator's line, or of an indicator kept in an attribute
            and one of its lines.
    """
    tree = _tree(file)
    names = {output, output.split(".")[0].split("[")[0]}
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Assign):
            for made in node.targets:
                name = made.attr if isinstance(made, ast.Attribute) else None
                if isinstance(made, ast.Subscript):
                    name = _key(made)
                if name in names:
                    return CodeLine(file, node.lineno)
    return None


def _common(left: list[Step], right: list[Step]) -> int:
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if (a.frame, a.where, a.is_return) != (b.frame, b.where, b.is_return):
            return place
    return min(len(left), len(right))


def _before(steps: list[Step], place: int) -> int:
    """The last step before a place, in the same call if it has one."""
    if place < len(steps):
        for earlier in range(place - 1, -1, -1):
            if steps[earlier].frame == steps[place].frame:
                return earlier
    return place - 1


def _changes(left: list[Step], right: list[Step]) -> dict[str, _Change]:
    """Every variable that differs, where it first does, by name."""
    changes: dict[str, _Change] = {}
    last_of_frame: dict[int, int] = {}
    last_with: dict[str, int] = {}
    for place, (a, b) in enumerate(zip(left, right, strict=True)):
        for key, value in a.values.items():
            if key in changes:
                continue
            other = b.values.get(key)
            if other is not None and not differ(value, other):
                last_with[key] = place
                continue
            own = key.startswith("0:")
            # What an object holds may have been changed in any call.
            made = (
                last_with.get(key, last_of_frame.get(a.frame))
                if own
                else last_of_frame.get(a.frame)
            )
            if made is not None:
                # Bar by bar nothing is known yet of later bars: numbers count too.
                whole = value[0] or a.bar >= 0
                changes[key] = _Change(key, place, made, whole)
        last_of_frame[a.frame] = place
    return changes


def _followed(change: _Change, steps: list[Step], changes: dict[str, _Change]) -> int:
    """Go into the calls that a line makes and back through the variables that it uses."""
    for _ in range(_MOST_HOPS):
        inner = [
            c
            for c in changes.values()
            if change.made < c.made < change.seen
            and c.whole
            and not c.key.startswith("0:")
            and steps[c.made].frame > steps[change.made].frame
        ]
        used = list(_used(change, steps, changes))
        following = min(inner or used, key=lambda c: c.seen, default=None)
        if following is None:
            break
        change = following
    return change.made


def _used(change: _Change, steps: list[Step], changes: dict[str, _Change]) -> Iterator[_Change]:
    step = steps[change.made]
    names = _names_in(step.where.file, step.where.line)
    for other in changes.values():
        if other.seen > change.made or other.made >= change.made:
            continue
        owner, _, rest = other.key.partition(":")
        name = rest.split(" ", 1)[-1] if owner == "0" else rest
        if owner not in ("0", str(step.frame)):
            continue
        if name in names or _head(name) in names:
            yield other


def _head(name: str) -> str:
    """The variable that a column or a fitted attribute belongs to."""
    own, rest = ("self.", name[5:]) if name.startswith("self.") else ("", name)
    return own + rest.split("[")[0].split(".")[0]


@functools.lru_cache(maxsize=64)
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


def _names_in(file: str, line: int) -> set[str]:
    """Names that the statement at a line reads: a, a[b] for a constant b, self.a."""
    tree = _tree(file)
    spans = [
        node
        for node in (ast.walk(tree) if tree else ())
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    if not spans:
        return set()
    statement = max(spans, key=lambda node: node.lineno)
    parts: list[ast.AST] = [statement]
    if isinstance(statement, ast.If | ast.While):
        parts = [statement.test]
    elif isinstance(statement, ast.For):
        parts = [statement.iter]
    elif isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
        parts = [statement.value] if statement.value else []
        if isinstance(statement, ast.AugAssign):
            parts.append(statement.target)
    return {name for part in parts for name in _loaded(part)}


def _loaded(node: ast.AST) -> Iterator[str]:
    owner = getattr(node, "value", None)
    if isinstance(node, ast.Subscript) and isinstance(owner, ast.Name) and (key := _key(node)):
        yield f"{owner.id}[{key}]"
        return
    if isinstance(node, ast.Attribute) and isinstance(owner, ast.Name) and owner.id == "self":
        yield f"self.{node.attr}"
        return
    if isinstance(node, ast.Name):
        yield node.id
    for child in ast.iter_child_nodes(node):
        yield from _loaded(child)


def _key(node: ast.Subscript) -> str | None:
    """The column that is asked for, where it is written out."""
    if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        return node.slice.value
    return None
