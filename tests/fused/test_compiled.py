"""Where compiled code is kept."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_code_runs_where_nothing_can_be_kept():
    code = (
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"  # as where no folder can be written
        "from glow_bt.fused import compiled\n"
        "@compiled.kept\n"
        "def double(x):\n"
        "    return 2 * x\n"
        "assert double(2) == 4\n"
        "assert double.stats.cache_path is None\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_kept_code_is_loaded_and_not_compiled_again(tmp_path):
    module = tmp_path / "kept_module.py"
    module.write_text(
        "from glow_bt.fused.compiled import kept\n@kept\ndef double(x):\n    return 2 * x\n"
    )
    code = "import kept_module as m; m.double(2.0); print(sum(m.double.stats.cache_hits.values()))"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    ]
    assert runs == ["0\n", "1\n"]
