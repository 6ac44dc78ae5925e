"""joblib's Dask backend, made to tell of tasks that were lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joblib._dask import DaskDistributedBackend

from glow_bt.errors import ConfigError, MissingExtraError
from glow_bt.evaluation.units import code_sha256
from glow_bt.training.pipeline import library_versions

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["FEWEST_PROCESSES", "Lost", "dask_backend"]

# joblib runs a single job in the calling process, which a lost worker must not be.
FEWEST_PROCESSES = 2
_CONNECT_SECONDS = 10
# How often it is looked whether there are workers, and how long nobody waits for one.
_LOOK_SECONDS = 1.0
_DESERTED_SECONDS = 60
# Above it Dask warns of a large graph; the bars of a unit go with it, so that they survive the
# loss of any worker.
_LARGEST_TASK = "1 GiB"


@dataclass(frozen=True)
class Lost:
    """Stands for the result of a task whose workers died."""

    reason: str


class _TellingBackend(DaskDistributedBackend):
    """Hands out `Lost` where a task ended without a result.

    joblib's own tells nobody, and the call waits for ever (joblib 1.6.0).
    """

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return how many tasks are handed out at a time."""
        return max(int(super().effective_n_jobs(n_jobs)), FEWEST_PROCESSES)

    async def _collect(self) -> None:
        watch = asyncio.ensure_future(self._give_up())
        try:
            while self._continue:
                async for future, result in self.waiting_futures:
                    if future.status != "finished":
                        error = result[1] if isinstance(result, tuple) else result
                        result = [Lost(_reason(error))]
                    self._hand_out(future, result)
                await asyncio.sleep(0.01)
        finally:
            watch.cancel()

    async def _give_up(self) -> None:
        """Take what is under way for lost where no worker is left and none comes."""
        since = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                workers = await self.client.scheduler.ncores()
            except OSError:  # nor is the scheduler
                workers = {}
            if workers:
                since = time.monotonic()
            elif time.monotonic() - since > _DESERTED_SECONDS:
                for future in list(self._results):
                    lost = Lost(f"no worker is left since {_DESERTED_SECONDS} seconds")
                    self._hand_out(future, [lost])

    def _hand_out(self, future: Any, result: Any) -> None:  # noqa: ANN401
        if future in self._results:
            self._results.pop(future).set_result(result)
            self._callbacks.pop(future)(result)


def _reason(error: object) -> str:
    kind = type(error).__name__
    return "its process ended" if kind == "KilledWorker" else f"{kind}: {error}"


@contextmanager
def dask_backend(
    address: str | None, workers: int, retries: int
) -> Iterator[DaskDistributedBackend]:
    """Connect to a scheduler, or start one here with so many worker processes.

    Raises:
        MissingExtraError: if Dask is not installed.
        ConfigError: if the address is none, the scheduler does not answer or has no workers, or
            a worker has another version of the code or of a library.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
        from distributed.comm import resolve_address
    except ImportError as error:
        raise MissingExtraError("distributed", "dask", "engine dask") from error
    settings: dict[str, Any] = {
        "distributed.admin.large-graph-warning-threshold": _LARGEST_TASK,
        "distributed.scheduler.allowed-failures": retries,
    }
    with dask.config.set(settings):
        if address is None:
            with (
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    # Nothing is open to other machines.
                    dashboard_address="127.0.0.1:0",
                    worker_dashboard_address="127.0.0.1:0",
                    scheduler_kwargs={"dashboard": False},
                ) as cluster,
                Client(cluster, set_as_default=False) as client,
            ):
                yield _backend(client)
            return
        try:
            resolve_address(address)  # before a client is there that would wait at its end
            client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except ValueError as error:
            raise ConfigError(
                "expected the address of a Dask scheduler, such as tcp://10.0.0.1:8786, found "
                f"{address!r} ({error})"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"expected a Dask scheduler at {address}, found none that answers within "
                f"{_CONNECT_SECONDS} seconds ({error}); start one with 'dask scheduler'"
            ) from error
        with client:
            backend = _backend(client)
            _refuse_other_code(client)
            yield backend


def _backend(client: Client) -> DaskDistributedBackend:
    try:
        client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except TimeoutError as error:
        raise ConfigError(
            f"expected a Dask scheduler with workers at {client.scheduler.address}, found none "
            f"within {_CONNECT_SECONDS} seconds; start some with 'dask worker'"
        ) from error
    return _TellingBackend(client=client)


def _refuse_other_code(client: Client) -> None:
    """Refuse workers that would train something else, or that cannot train at all."""
    own, place = _versions(), "the versions of glow_bt and its libraries that are here"
    for address, found in client.run(_versions, on_error="return").items():
        if isinstance(found, OSError):
            continue  # a worker that is just going
        if isinstance(found, Exception):
            other = str(found)
        else:
            other = ", ".join(f"{k} {v}" for k, v in found.items() if own.get(k) != v)
        if other:
            raise ConfigError(
                f"expected {place} on every Dask worker, found at {address} {other}; install "
                "the same everywhere"
            )


def _versions() -> dict[str, str]:
    code = {"source code with sha256": code_sha256()[:16]}
    return {**library_versions("glow"), **code}
