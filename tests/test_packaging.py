"""The wheel holds what it should, and leaves a user's own folders alone."""

import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import glow_bt

ROOT = Path(__file__).parents[1]
PACKAGES = ("glow_bt", "strategies", "datafeeds")
# Without an __init__.py they merge with a user's own folders of the same names.
NAMESPACES = ("strategies", "datafeeds")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.mark.packaging
def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel):
    info = f"glow_bt-{glow_bt.__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel.namelist()} == {*PACKAGES, info}


@pytest.mark.packaging
def test_every_module_is_in_the_wheel(wheel):
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    expected = {path.relative_to(ROOT).as_posix() for path in sources}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == expected


@pytest.mark.packaging
def test_the_wheel_says_that_it_is_typed(wheel):
    assert "glow_bt/py.typed" in wheel.namelist()


@pytest.mark.packaging
def test_the_wheel_brings_command_licence_and_version(wheel):
    info = f"glow_bt-{glow_bt.__version__}.dist-info"
    metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert metadata["Name"] == "glow-bt"
    assert metadata["Version"] == glow_bt.__version__
    assert metadata["License-Expression"] == "GPL-3.0-or-later"
    assert "glow-bt = glow_bt.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


@pytest.mark.packaging
@pytest.mark.parametrize("package", NAMESPACES)
def test_namespace_folders_stay_namespaces(wheel, package):
    assert not (ROOT / package / "__init__.py").exists()
    assert f"{package}/__init__.py" not in wheel.namelist()


def test_the_version_is_that_of_the_changelogs_top_entry():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[(.+?)\]", changelog, flags=re.MULTILINE)
    released = [entry for entry in entries if entry != "Unreleased"]
    assert released[0] == glow_bt.__version__
