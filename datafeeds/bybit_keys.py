"""API keys: where they come from, and that they go nowhere else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NoReturn

from glow_bt.errors import ConfigError

__all__ = ["KEY_VARIABLES", "ApiKeys", "load_keys"]

KEY_VARIABLES = ("BYBIT_API_KEY", "BYBIT_API_SECRET")
"""Environment variables that hold a key and its secret."""
_NAMES = ("key", "secret")


class ApiKeys:
    """A key and its secret, which do not show and cannot be saved.

    Args:
        key: as the exchange gave it.
        secret: of that key.

    Raises:
        ConfigError: if one is empty or holds a space or what is not ASCII.
    """

    __slots__ = ("_key", "_secret")

    def __init__(self, key: str, secret: str) -> None:
        for name, value in zip(_NAMES, (key, secret), strict=True):
            if not value or not value.isascii() or not value.isprintable() or " " in value:
                raise ConfigError(f"expected an API {name} of ASCII letters, found another text")
        self._key, self._secret = key, secret

    def __repr__(self) -> str:
        """Tell that there are keys and nothing of them."""
        return "ApiKeys(hidden)"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise ConfigError("expected API keys to stay in this process, found them to be pickled")

    def reveal(self) -> tuple[str, str]:
        """Return key and secret, to sign a request with."""
        return self._key, self._secret

    def redact(self, text: str) -> str:
        """Return a text without key and secret."""
        for value in (self._key, self._secret):
            text = text.replace(value, "(hidden)")
        return text


def load_keys(file: str | os.PathLike[str] | None = None) -> ApiKeys | None:
    """Load keys from a file, or else from the environment (`KEY_VARIABLES`).

    Args:
        file: two lines, ``key=...`` and ``secret=...``; only its owner may read it.

    Returns:
        The keys; None if no file is given and the environment has none.

    Raises:
        ConfigError: if the file cannot be read, others may read it, or something is missing.
            No message shows anything of the content.
    """
    if file is not None:
        return _from_file(Path(file))
    key, secret = (os.environ.get(name, "") for name in KEY_VARIABLES)
    if not key and not secret:
        return None
    for name, value in zip(KEY_VARIABLES, (key, secret), strict=True):
        if not value:
            raise ConfigError(f"expected {' and '.join(KEY_VARIABLES)}, found no {name}; set both")
    return ApiKeys(key, secret)


def _from_file(path: Path) -> ApiKeys:
    lines, reason = _read_private(path)
    if reason:
        raise ConfigError(f"expected a file of API keys, found {path} ({reason})")
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or name.startswith("#"):
            continue
        if name not in _NAMES or not equals or name in found:
            raise ConfigError(
                f"expected the lines key=... and secret=... in {path}, found another on line "
                f"{number}"
            )
        found[name] = value
    if len(found) < len(_NAMES):
        raise ConfigError(f"expected the lines key=... and secret=... in {path}, found one only")
    return ApiKeys(found["key"], found["secret"])


def _read_private(path: Path) -> tuple[list[str], str]:
    """Read a file that only its owner may read; return its lines, and why not."""
    try:
        with path.open(encoding="utf-8") as file:
            # Of the open file, which cannot be another one by now.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name != "posix" or not mode & 0o077:
                return file.read().splitlines(), ""
    except OSError as error:
        return [], error.strerror or "it cannot be read"
    except UnicodeDecodeError:
        return [], "it is no text"
    raise ConfigError(
        f"expected {path} readable by its owner only, found mode {mode:04o}; chmod 600 {path}"
    )
