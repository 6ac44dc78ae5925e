"""The families of flows by name: what each is called, takes and is built by."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol, cast

from glow_bt.errors import FlowError, MissingExtraError
from glow_bt.flows.base import Flow
from glow_bt.flows.flow_matching import FlowMatching
from glow_bt.flows.glow import Glow
from glow_bt.flows.tails import TailLayer
from glow_bt.flows.zuko_flows import CNF, IAF, MAF, NSF

__all__ = [
    "FAMILIES",
    "describe_flow",
    "family_libraries",
    "family_settings",
    "make_flow",
    "tails_of",
]


@dataclass(frozen=True)
class _Family:
    """The class behind a name, those of its arguments that the name fixes, and what it needs."""

    kind: type[Flow]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    library: str | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """Every other argument of the class, but for the two widths."""
        taken = {"num_features", "context_features", *self.fixed}
        return tuple(n for n in inspect.signature(self.kind).parameters if n not in taken)


class _Configured(Protocol):
    config: Mapping[str, object]


_REGISTRY: dict[str, _Family] = {
    "glow": _Family(Glow),
    # Dinh et al. 2017 (arXiv:1605.08803) and Dinh et al. 2014 (arXiv:1410.8516)
    "realnvp": _Family(Glow, {"coupling": "affine", "permutation": "reverse"}),
    "nice": _Family(Glow, {"coupling": "additive", "permutation": "reverse"}),
    "maf": _Family(MAF, library="zuko"),
    "iaf": _Family(IAF, library="zuko"),
    "nsf": _Family(NSF, library="zuko"),
    "cnf": _Family(CNF, library="zuko"),
    "flow_matching": _Family(FlowMatching),
}
FAMILIES = tuple(_REGISTRY)


def family_settings(family: str) -> tuple[str, ...]:
    """Return the names of the settings that a family takes.

    Raises:
        FlowError: if there is no such family.
    """
    return _named(family).settings


def family_libraries(family: str) -> tuple[str, ...]:
    """Return the optional packages that a family needs, all of them installed.

    Raises:
        FlowError: if there is no such family.
        MissingExtraError: if one is not installed.
    """
    library = _named(family).library
    if library is None:
        return ()
    if find_spec(library) is None:
        raise MissingExtraError(library, "flows", f"flow {family!r}")
    return (library,)


def make_flow(family: str, num_features: int, context_features: int = 0, **settings: Any) -> Flow:  # noqa: ANN401
    """Build a flow of a family; "nice" and "realnvp" are settings of `Glow`.

    Args:
        family: one of `FAMILIES`.
        num_features: D, width of a row.
        context_features: C, width of its context; 0 for none.
        settings: those of `family_settings`; what is left out has the family's default.

    Raises:
        FlowError: if there is no such family, it has no such setting, or a value cannot work.
        MissingExtraError: if the family's library is not installed.
    """
    chosen = _named(family)
    unknown = sorted(settings.keys() - set(chosen.settings))
    if unknown:
        raise FlowError(
            f"expected settings of flow {family!r} among {', '.join(chosen.settings)}, found "
            f"{', '.join(unknown)}; leave it out or choose another flow"
        )
    widths = {"num_features": num_features, "context_features": context_features}
    return cast("Any", chosen.kind)(**widths, **chosen.fixed, **settings)  # type: ignore[no-any-return]


def describe_flow(flow: Flow) -> dict[str, Any]:
    """Return the family and all settings of a flow: `make_flow(**describe_flow(flow))` is alike.

    Raises:
        FlowError: if the flow is of no family.
    """
    for name, family in _REGISTRY.items():
        if family.kind is type(flow):
            return {"family": name, **cast("_Configured", flow).config}
    raise FlowError(
        f"expected a flow of one of the families {', '.join(FAMILIES)}, found a "
        f"{type(flow).__name__}; build it with make_flow"
    )


def tails_of(flow: Flow) -> TailLayer | None:
    """Return the layer next to the data that makes a flow's tails heavy, if it has one."""
    tails = getattr(flow, "tails", None)
    return tails if isinstance(tails, TailLayer) else None


def _named(family: str) -> _Family:
    try:
        return _REGISTRY[family]
    except KeyError:
        raise FlowError(f"expected a flow among {', '.join(FAMILIES)}, found {family!r}") from None
