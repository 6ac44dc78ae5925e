"""What is to be verified: found by name, and told apart from the code around it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import linecache
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal

import backtrader as bt

from glow_bt.errors import ConfigError

__all__ = ["CodeLine", "Target", "load_target", "own_error", "silenced", "target_of"]

Kind = Literal["strategy", "indicator", "function"]
_BACKTRADER = Path(bt.__file__).parent


@dataclass(frozen=True, order=True)
class CodeLine:
    """A line of somebody's code.

    Attributes:
        file: its file.
        line: its number, from 1.
    """

    file: str
    line: int

    @property
    def code(self) -> str:
        """Text of the line, without its indent."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        """Return file and line as editors and compilers write them."""
        path = Path(self.file)
        here = Path.cwd()
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        return f"{shown}:{self.line}"


@dataclass(frozen=True, eq=False)
class Target:
    """What is to be verified.

    Attributes:
        name: as it was asked for.
        kind: strategy, indicator or function.
        call: the class or function.
        params: what it is called with beside the bars.
        file: where it is written; code under that folder counts as the user's.
    """

    name: str
    kind: Kind
    call: Any
    params: dict[str, Any]
    file: Path

    def owns(self, file: str) -> bool:
        """Say whether a file is the user's, not a library's."""
        if file == str(self.file):
            return True
        if _is_library(self.file) or file.startswith("<"):
            return False
        path = Path(file)
        return path.is_relative_to(self.file.parent) and not _is_library(path)


def _is_library(path: Path) -> bool:
    libraries = {"site-packages", "dist-packages"}
    return bool(libraries & set(path.parts)) or path.is_relative_to(_BACKTRADER)


def load_target(text: str, model: str | None = None) -> Target:
    """Find what ``module:name`` or ``file.py:name`` names.

    Args:
        text: where it is.
        model: what is handed to its parameter ``model``; None for nothing.

    Raises:
        ConfigError: if there is no such module, file or name, if its code fails when it is
            loaded, or if it is nothing that can be verified or takes no model.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ConfigError(
            f"expected TARGET as module:name or file.py:name, found {text!r}; "
            "name a strategy or indicator class or a feature function"
        )
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    try:
        found = getattr(module, name)
    except AttributeError:
        names = [known for known in dir(module) if not known.startswith("_")]
        raise ConfigError(
            f"expected a name of {place}, found {name!r}, which it does not have; "
            f"{_nearest(name, names)}"
        ) from None
    return target_of(found, text, model)


def target_of(found: Any, name: str | None = None, model: object = None) -> Target:  # noqa: ANN401
    """Return what is to be verified about a class or function.

    Args:
        found: a Backtrader strategy or indicator class, or a function of bars.
        name: what it is called in messages.
        model: what is handed to its parameter ``model``; None for nothing.

    Raises:
        ConfigError: if it is something else, or takes no model though one is given.
    """
    name = name or str(getattr(found, "__qualname__", repr(found)))
    kind = _kind_of(found, name)
    params: dict[str, Any] = {}
    if model is not None:
        if "model" not in _parameters(found, kind):
            raise ConfigError(
                f"expected {name} to have a parameter model, found none; leave --model out, or "
                "add the parameter"
            )
        params["model"] = model
    _refuse_arguments(found, name, kind, params)
    try:
        file = inspect.getsourcefile(inspect.unwrap(found))
    except TypeError:
        file = None
    return Target(name, kind, found, params, Path(file or "<no file>"))


def _kind_of(found: object, name: str) -> Kind:
    if isinstance(found, type):
        if issubclass(found, bt.Strategy):
            return "strategy"
        if issubclass(found, bt.Indicator):
            return "indicator"
    elif callable(found):
        return "function"
    what = "class" if isinstance(found, type) else type(found).__name__
    raise ConfigError(
        f"expected a backtrader.Strategy or backtrader.Indicator class or a function of bars, "
        f"found {name}, a {what}; wrap it in a function that takes the bars and returns one row "
        "a bar"
    )


def _refuse_arguments(found: Any, name: str, kind: Kind, params: dict[str, Any]) -> None:  # noqa: ANN401
    """Refuse what cannot be called with what it is given."""
    given = "the bars alone" if kind == "function" else "no arguments"
    if params:
        given += " and a model"
    try:
        if kind == "function":
            inspect.signature(found).bind(None, **params)
        else:  # Backtrader hands params over by itself
            inspect.signature(found.__init__).bind(None)
    except TypeError as error:
        raise ConfigError(
            f"expected {name} to be called with {given}, found {error}; give its arguments "
            "defaults, or wrap it in a function or a subclass that knows them"
        ) from error
    except ValueError:  # written in C
        return


def _parameters(found: Any, kind: Kind) -> list[str]:  # noqa: ANN401
    if kind != "function":
        return list(found.params._getkeys())
    try:
        return list(inspect.signature(found).parameters)
    except ValueError:  # written in C
        return []


def _load_module(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(name=name)
    except (ModuleNotFoundError, ValueError) as error:
        known = [path.stem for path in Path.cwd().glob("*.py")]
        raise ConfigError(
            f"expected an importable module, found none called {name!r}; "
            f"{_nearest(name, known, 'give the path of its file, as in features.py:momentum')}"
        ) from error
    with _loading(name):
        return importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        known = [other.name for other in path.parent.glob("*.py")]
        raise ConfigError(
            f"expected a file of Python code, found none at {path}; "
            f"{_nearest(path.name, known, 'check the path')}"
        )
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    linecache.checkcache(str(path))
    # Its own name for the file, so that a library of the same name stays what it is.
    name = f"_verified_{path.stem}_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"expected a file of Python code, found {path}; check its name")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Backtrader looks its classes' modules up
    with _loading(str(path)):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    try:
        with silenced():
            yield
    except (Exception, SystemExit) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = getattr(error, "lineno", None) or where.lineno
        file = getattr(error, "filename", None) or where.filename
        raise ConfigError(
            f"expected code that loads, found {type(error).__name__} in {name}: {error} "
            f"({file}:{line}); correct it first"
        ) from error


def _nearest(name: str, known: list[str], otherwise: str = "check the spelling") -> str:
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else otherwise


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep what user code prints off standard output: it runs hundreds of times."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def own_error(target: Target, trace: TracebackType | None) -> CodeLine | None:
    """Return the user's line in which an error arose; None if there is none."""
    lines = [
        CodeLine(frame.filename, frame.lineno or 0)
        for frame in traceback.extract_tb(trace)
        if target.owns(frame.filename)
    ]
    return lines[-1] if lines else None
