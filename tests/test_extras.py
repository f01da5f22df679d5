"""Without an extra, tests that need it skip, at collection too, and the last lines say so."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent

BARE = """
import importlib.metadata
real = importlib.metadata.distribution

def distribution(name):
    if name in ("ray", "onnx"):
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)

importlib.metadata.distribution = distribution
"""


def test_tests_that_need_an_extra_skip_and_the_last_lines_say_so(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(BARE)  # an environment without two of the extras
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers --color=no -p no:cacheprovider\n")
    marked = "import pytest\n\n@pytest.mark.extra('ray')\n@pytest.mark.parametrize('n', [1, 2])\ndef test_marked(n):\n"
    (tmp_path / "test_marked.py").write_text(f"{marked}    raise AssertionError\n\ndef test_plain():\n    pass\n")
    at_top = "from extras import need\nneed('onnx')\nimport no_such_package\n\ndef test_never():\n    pass\n"
    (tmp_path / "test_module.py").write_text(at_top)
    command = [sys.executable, "-m", "pytest", "-p", "bare", "-p", "conftest", "."]
    path = os.pathsep.join([str(tmp_path), str(TESTS), *sys.path])
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    *_, said, how, _ = ended.stdout.splitlines()
    assert said == "skipped tests or test modules, by the extra that they need: onnx (1), ray (2)"
    assert how == "to run all tests: uv run --all-extras pytest"
