"""How functions of this package are compiled, and where compiled code is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["compiled", "kept"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function when it is first used by a kept one, into whose code it goes.

    Numbers behave as in NumPy: a division by zero is infinite, NaN stays NaN.
    """
    inner = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    return cast("_Function", inner(function))


def kept(function: _Function) -> _Function:
    """Compile an outermost function and keep its machine code on disk for later sessions.

    It is kept beside the module, or where that cannot be written in the user's cache folder, or
    where that cannot be written either nowhere: then each session compiles it anew. numba
    replaces kept code when the file of the function itself changes, but not when a file that it
    uses does, so a digest of all sources is made part of the name.
    """
    function.__qualname__ = f"{function.__qualname__}-{_digest_of_sources()}"
    options = {"error_model": "numpy", "nogil": True}
    try:
        return cast("_Function", njit(cache=True, **options)(function))
    except RuntimeError:  # no folder can be written
        return cast("_Function", njit(**options)(function))


@cache
def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
