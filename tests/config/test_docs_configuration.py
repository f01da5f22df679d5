"""The page of all keys is the one that the schema gives."""

import re
import subprocess
import sys
from pathlib import Path

from serfit.config.keys import dotted, schema_keys
from serfit.config.reference import reference

PAGE = Path(__file__).resolve().parents[2] / "docs/configuration.md"


def test_the_committed_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "run python -m serfit.config.reference > docs/configuration.md"
    )


def test_the_command_prints_the_page():
    printed = subprocess.run([sys.executable, "-m", "serfit.config.reference"], capture_output=True, check=True)
    assert printed.stdout.decode() == reference()
    assert printed.stderr == b""


def test_every_key_has_its_row_and_meaning():
    rows: dict[str, list[str]] = {}
    section = ""
    for line in reference().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| `"):
            cells = re.split(r" (?<!\\)\| ", line.strip("| "))
            rows[f"{section}.{cells[0].strip('`')}"] = cells
    keys = schema_keys()
    assert set(rows) == {dotted(address) for address, key in keys.items() if key.section is None}
    assert all(len(cells) == 4 and all(cells) for cells in rows.values())
    assert all(key.meaning.endswith(".") for key in keys.values())
