"""How the code is laid out, so that the next change finds its place."""

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from statistics import median

import pytest

import glow_bt.bt

ROOT = Path(__file__).parents[1]
PACKAGES = ("glow_bt", "strategies", "datafeeds")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# Where each heavy library may be imported; everything else works without it.
HOMES = {
    "torch": (
        "glow_bt.flows",
        "glow_bt.artifact",
        "glow_bt.threads",
        "glow_bt.training",
    ),
    "backtrader": ("glow_bt.bt", "glow_bt.evaluation", "strategies", "datafeeds.bybit_feed"),
    "ccxt": ("datafeeds.bybit_client",),
    "websockets": ("datafeeds.bybit_stream",),
    "quantstats": ("glow_bt.evaluation.tearsheet",),
    "optuna": ("glow_bt.training.search",),
    "zuko": ("glow_bt.flows.zuko_flows",),
    "numba": ("glow_bt.fused",),
    "matplotlib": (
        "glow_bt.evaluation.canvas",
        "glow_bt.evaluation.flow_pictures",
        "glow_bt.evaluation.pictures",
        "glow_bt.evaluation.risk_pictures",
        "glow_bt.evaluation.risk_shape_pictures",
        "glow_bt.evaluation.tearsheet",
    ),
}
PURE = (
    "errors",
    "ohlcv",
    "features",
    "folds",
    "likelihood",
    "microstructure",
    "policy",
    "regimes",
    "risk",
    "statistics",
)


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def each_module(test):
    return pytest.mark.parametrize("path", MODULES, ids=name_of)(test)


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(node):
    """Yield the modules that are imported when the code under this node runs."""
    if is_for_type_checkers(node):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module
    for child in ast.iter_child_nodes(node):
        yield from imported(child)


def is_within(module, package):
    return f"{module}.".startswith(f"{package}.")


def lines_of_code(function):
    """Count a function's lines from its name on, without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def bound_names(tree):
    """Return the names that a module binds at its top, and those of them that are public code.

    Names loaded when first used stand under TYPE_CHECKING.
    """
    bound, public = set(), set()
    typing_only = [node.body for node in tree.body if isinstance(node, ast.If)]
    for node in [*tree.body, *chain.from_iterable(typing_only)]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
            if not node.name.startswith("_"):
                public.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound |= {
                name.id for t in targets for name in ast.walk(t) if isinstance(name, ast.Name)
            }
    return bound, public


def exported_names(tree):
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def constants_then_classes_then_functions(name):
    return (not name.isupper(), name[0].islower() or name[0] == "_", name)


def loaded_by(*modules):
    """Return which of the heavy libraries a fresh interpreter holds after importing these."""
    code = f"import sys, {', '.join(modules)}; print(*(set({list(HOMES)}) & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return run.stdout.split()


def test_imports_go_downwards_only():
    command = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run(
        [command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_part_has_its_layer_or_imports_nothing_of_ours():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = config["tool"]["importlinter"]["contracts"]
    layered = [part for layer in contract["layers"] for part in layer.split(" | ")]
    assert all(any(is_within(name_of(path), part) for path in MODULES) for part in layered)
    for path in MODULES:
        if not any(is_within(name_of(path), part) for part in layered):
            ours = [name for name in imported(tree_of(path)) if name.startswith(PACKAGES)]
            assert not ours, f"{name_of(path)} imports {ours}; give it a layer in pyproject.toml"


@each_module
def test_heavy_libraries_are_imported_in_their_homes_only(path):
    for name in imported(tree_of(path)):
        for library, homes in HOMES.items():
            if is_within(name, library):
                assert any(is_within(name_of(path), home) for home in homes), f"imports {name}"


def test_every_heavy_library_has_its_homes():
    for library, homes in HOMES.items():
        for home in homes:
            paths = [path for path in MODULES if is_within(name_of(path), home)]
            names = [name for path in paths for name in imported(tree_of(path))]
            assert any(is_within(name, library) for name in names), f"{home} needs no {library}"


def test_importing_the_package_loads_no_heavy_library():
    assert loaded_by("glow_bt") == []


def test_the_pure_parts_load_no_heavy_library():
    assert loaded_by(*(f"glow_bt.{part}" for part in PURE)) == []


def test_a_feed_does_not_wait_for_torch():
    assert loaded_by("datafeeds.bybit_feed") == ["backtrader"]


@pytest.mark.parametrize("name", glow_bt.bt.__all__)
def test_adapters_are_loaded_when_first_used(name):
    assert getattr(glow_bt.bt, name).__name__ == name


def test_unknown_adapters_are_unknown():
    with pytest.raises(AttributeError, match="no attribute 'GlowOracle'"):
        _ = glow_bt.bt.GlowOracle


@each_module
def test_modules_and_functions_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert lines_of_code(node) <= 50, node.name


def test_most_modules_fit_on_a_few_screens():
    assert median(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES) <= 150


@each_module
def test_modules_are_named_after_what_they_hold(path):
    vague = {"base_utils", "common", "core", "helper", "helpers", "misc", "util", "utils"}
    assert not vague & set(path.relative_to(ROOT).with_suffix("").parts)


@each_module
def test_public_names_are_declared_in_order(path):
    tree = tree_of(path)
    bound, public = bound_names(tree)
    exported = exported_names(tree)
    if exported is None:
        assert not public, "has public names and no __all__"
        return
    assert list(exported) == sorted(set(exported), key=constants_then_classes_then_functions)
    assert set(exported) <= bound
    assert public <= set(exported)


@each_module
def test_private_names_stay_in_their_module(path):
    tree = tree_of(path)
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and is_within(node.module, "glow_bt")
        for alias in node.names
    }
    assert not {name for name in modules if name.startswith("_")}
    modules = {name for name in modules if name.islower()}  # a named tuple's _fields are public
    assert not {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match("_[^_]", node.attr)
        and ast.unparse(node.value) in modules
    }


@each_module
def test_one_word_is_used_for_each_concept(path):
    text = path.read_text(encoding="utf-8").replace(".call_and_ladj(", "")  # zuko's word
    assert not re.findall(r"(?i)ladj|log_?abs_?det|num_feats|\bTODO\b|\bFIXME\b", text)
