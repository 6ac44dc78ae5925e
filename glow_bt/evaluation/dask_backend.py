"""joblib's Dask backend, made to tell of tasks that were lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joblib._dask import DaskDistributedBackend

from glow_bt.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Lost", "dask_backend"]

_CONNECT_SECONDS = 10
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

    async def _collect(self) -> None:
        while self._continue:
            async for future, result in self.waiting_futures:
                waiting, callback = self._results.pop(future), self._callbacks.pop(future)
                if future.status != "finished":
                    error = result[1] if isinstance(result, tuple) else result
                    result = [Lost(f"{type(error).__name__}: {error}")]
                waiting.set_result(result)
                callback(result)
            await asyncio.sleep(0.01)


@contextmanager
def dask_backend(
    address: str | None, workers: int, retries: int
) -> Iterator[DaskDistributedBackend]:
    """Connect to a scheduler, or start one here with so many worker processes.

    Raises:
        MissingExtraError: if Dask is not installed.
        ConfigError: if the scheduler does not answer, or has no workers.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
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
            client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"expected a Dask scheduler at {address}, found none that answers within "
                f"{_CONNECT_SECONDS} seconds ({error}); start one with 'dask scheduler'"
            ) from error
        with client:
            yield _backend(client)


def _backend(client: Client) -> DaskDistributedBackend:
    try:
        client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except TimeoutError as error:
        raise ConfigError(
            f"expected a Dask scheduler with workers at {client.scheduler.address}, found none "
            f"within {_CONNECT_SECONDS} seconds; start some with 'dask worker'"
        ) from error
    return _TellingBackend(client=client)
