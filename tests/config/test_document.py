"""YAML without its traps, with its lines, and with the environment filled in."""

import json
import math
import re

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from serfit.config.document import Document, Place, fill_in, parse


def read(text: str, **environment: str) -> Document:
    return parse(text, lambda line: Place(0, line, f"line {line}"), environment)


def complaints(text: str, **environment: str) -> list[str]:
    return [f"{complaint.place.text}: {complaint.text}" for complaint in sorted(read(text, **environment).complaints)]


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="$\x85\ufeff\u2028\u2029"),
        max_size=12,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdef"), inner, max_size=3),
    max_leaves=8,
)


@given(data=PLAIN)
def test_json_reads_back_as_it_was(data):
    assert read(json.dumps(data, ensure_ascii=False)).data == data


@given(data=PLAIN)
def test_what_pyyaml_writes_reads_back_as_it_was(data):
    written = yaml.safe_dump(data, allow_unicode=True)
    # YAML 1.1, which PyYAML writes, takes 08 for text, being no octal number; here, as in YAML 1.2, it is the number 8
    assume(not re.search(r"(?<![\w.'\"])0\d*[89]", written))
    assert read(written).data == data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E3", 5000.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("017", 17),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("no", "no"),
        ("On", "On"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("'1e-4'", "1e-4"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("-", [None]),
        ("e5", "e5"),
        (".", "."),
        ("1.2.3", "1.2.3"),
        ("random:tiny", "random:tiny"),
        ("-.inf", -math.inf),
    ],
)
def test_words_mean_what_they_look_like(text, value):
    given = read(text).data
    assert given == value
    assert type(given) is type(value)


def test_every_key_knows_its_line():
    document = read("# note\na:\n  b: 1\n  c: {d: 2,\n      e: 3}\nf: [x,\n y]\n")
    lines = {".".join(address): place.line for address, place in document.places.items()}
    assert lines == {"": 0, "a": 2, "a.b": 3, "a.c": 4, "a.c.d": 4, "a.c.e": 5, "f": 6}
    assert document.place(("a", "c", "z", "z")).line == 4
    assert document.place(("q",)).line == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "a: 1\nb:\n  c: 1\n  c: 2\na: 3",
            [
                "line 4: b.c is given twice (first in line 3); keep one",
                "line 5: a is given twice (first in line 1); keep one",
            ],
        ),
        ("a: &x\n  b: *x", ["line 1: a.b contains itself through an alias; write it out"]),
        (
            "a: !!python/name:os.system",
            ["line 1: a has the tag tag:yaml.org,2002:python/name:os.system; leave the tag out"],
        ),
        ("? [a]\n: 1", ["line 1: the file has a key that isn't a word"]),
        ("a:\n\tb: 1", ["line 2: a tab where YAML wants spaces; replace it by spaces"]),
        ("a: 1\nb: c\n\td: e", ["line 3: a tab where YAML wants spaces; replace it by spaces"]),
        ("a: \x07", ["line 1: not valid YAML: the character U+0007 isn't allowed; remove it"]),
    ],
)
def test_traps_are_complaints(text, told):
    assert complaints(text) == told


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: c: d", 2), ("a: [1\nb: 2\n", 2), ("a: 'x\n\n", 3), ("---\na: 1\n---\nb: 2", 3), ("a: *x", 1)],
)
def test_broken_syntax_is_one_complaint_with_its_line(text, line):
    document = read(text)
    assert document.data is None
    (complaint,) = document.complaints
    assert complaint.place.line == line
    assert complaint.text.startswith("not valid YAML: ")
    assert "\n" not in complaint.text


def test_aliases_are_read_where_they_stand():
    assert read("a: &x {b: 1}\nc: *x").data == {"a": {"b": 1}, "c": {"b": 1}}


# ---------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    ("text", "environment", "value"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("/r/${A}/${B:-y}", {"A": "x"}, "/r/x/y"),
        ("${A:-y}", {"A": ""}, "y"),
        ("${A:-}", {}, ""),
        ("$$ $${A} $$A $1 $", {"A": "x"}, "$ ${A} $A $1 $"),
        ("${A}", {"A": "${B}"}, "${B}"),
    ],
)
def test_variables_are_filled_in_once(text, environment, value):
    assert fill_in(text, environment) == value


@given(text=st.text())
def test_doubled_dollars_protect_any_text(text):
    assert fill_in(text.replace("$", "$$"), {}) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("${A}", "a needs the environment variable A, which isn't set; export A=..., or write ${A:-default}"),
        ("${A", 'a is "${A"; write ${NAME}, ${NAME:-default}, or $${ for the characters themselves'),
        ("$A/x", 'a is "$A/x"; write ${A}, or $$A for the characters themselves'),
        ("${1A}", 'a is "${1A}"; write ${NAME}, ${NAME:-default}, or $${ for the characters themselves'),
    ],
)
def test_variables_that_cannot_be_filled_in_are_complaints(text, told):
    assert complaints(f"a: '{text}'") == [f"line 1: {told}"]
    assert complaints(f"a: '{text}'", A="")[0].startswith("line 1: a ")


def test_nested_aliases_and_brackets_are_refused_at_once():
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for outer, inner in zip("bcdefghi", "abcdefgh", strict=True):
        bomb += f"{outer}: &{outer} [{', '.join([f'*{inner}'] * 9)}]\n"
    for text, words in ((bomb, "stand for more than 100,000 values"), ("a: " + "[" * 5000, "nested too deeply")):
        document = parse(text, lambda line: Place(0, line, f"line {line}"), {})
        assert document.data is None
        assert words in document.complaints[0].text
