"""What libraries write to standard error by themselves."""

import os

import pytest

from serfit.corpus.stderr import caught


def test_errors_of_the_decoder_are_caught_and_everything_else_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    with caught() as complaints:
        os.write(2, b"a line of somebody else\n[src/libmpg123/layer3.c:do():7] error: it failed!\nNote: resync...\n")
        os.write(2, b"half a line")
    assert complaints == ["it failed!"]
    assert capfd.readouterr().err == "a line of somebody else\nhalf a line"
    os.write(2, b"behind")
    assert capfd.readouterr().err == "behind"


def test_an_exception_leaves_standard_error_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), caught():
        raise ZeroDivisionError
    os.write(2, b"there")
    assert capfd.readouterr().err == "there"
