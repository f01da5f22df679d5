import os
from pathlib import Path
from typing import IO

import pytest

from serfit.errors import UserError
from serfit.files import write_atomically, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    write_text(target, "old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"can't write .*record\.json: No space left on device"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["record.json"]


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"ccc": float("nan")})
    assert not list(tmp_path.iterdir())
