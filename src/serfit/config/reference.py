"""The reference of all keys, written from the schema: `python -m serfit.config.reference > docs/configuration.md`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from serfit.config.keys import Key, dotted, schema_keys

INTRODUCTION = """\
# Configuration

Every key a configuration file may hold. This page is written from the schema by
`python -m serfit.config.reference > docs/configuration.md`; a test compares the two.

A file is YAML (or JSON), one section per heading below. Only `experiment.name` and `data.root` must be given; every
other key has a default. An unknown key, a key given twice or a value of the wrong kind is an error that names the line,
and all errors of a file are told together.

- **Overrides.** Any key can be set on the command line after the flags: `train.epochs=50`,
  `data.dimensions='[valence, arousal, dominance]'`, `train.early_stopping=null`. The value is YAML, a later override
  wins, a mapping given to a section changes only the keys it names.
- **Environment.** `${NAME}` in text stands for an environment variable and `${NAME:-default}` for one that may be unset
  or empty; `$$` is a dollar. `$NAME` without braces is an error.
- **Words and numbers.** `1e-4` is a number. `yes`, `no`, `on` and `off` are words, which keys that take true or false
  understand as well. Text that looks like a number, `true`, `false` or `null` needs quotes.
- **Paths** are relative to the folder in which the command runs, unless the table says otherwise; `~` is your home
  folder.
"""


def reference() -> str:
    """The whole page in Markdown, with a table per section."""
    keys = list(schema_keys().values())
    sections = [_section(key, keys) for key in keys if key.section is not None]
    return "\n".join([INTRODUCTION, *sections])


def _section(section: Key, keys: Sequence[Key]) -> str:
    """Heading, purpose and, where the section holds values besides other sections, their table."""
    about = section.meaning + (" May be left out or null." if section.nullable else "")
    rows = [_row(key) for key in keys if key.address[:-1] == section.address and key.section is None]
    table = ["| key | takes | default | meaning |", "|---|---|---|---|", *rows, ""] if rows else []
    return "\n".join([f"## {dotted(section.address)}", "", about, "", *table])


def _row(key: Key) -> str:
    cells = [f"`{key.address[-1]}`", key.allowed, _default(key), key.meaning]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(key: Key) -> str:
    """The default as it would stand in a file."""
    if key.required:
        return "**required**"
    value = str(key.default) if isinstance(key.default, Path) else key.default
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
