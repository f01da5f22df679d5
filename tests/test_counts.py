"""One thing is counted in the singular: no sentence of serfit's has "1 utterances" in it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
NOT_ALONE = {
    "len(members)": "an ensemble, of two or more",
    "len(parts['test'])": "a test part of one utterance has no CCC, so such a split is refused",
    "len(above)": "compared from ten utterances on",
    "len(noise.seeds)": "an assertion",
    "len(x)": "an assertion",
    "len(same)": "runs of one fold and seed, of two or more",
    "reference.utterances": "a published corpus",
}
"""What may be followed by a plural as it is, and why."""


def nouns(trees: dict[str, ast.Module]) -> set[str]:
    """What `errors.counted` counts anywhere, without adjectives."""
    calls = (node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = [call.args[1] for call in calls if ast.unparse(call.func) == "counted" and len(call.args) == 2]
    return {str(name.value).split()[-1] for name in names if isinstance(name, ast.Constant)}


def plurals(tree: ast.Module, names: set[str]) -> Iterator[str]:
    """Numbers in f-strings that are followed by a plural, whatever they are."""
    plural = re.compile(rf" (?:[\w-]+ )?(?:{'|'.join(sorted(names))})s\b")
    for text in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)):
        for before, value, after in zip([None, *text.values], text.values, text.values[1:], strict=False):
            if not (isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant)):
                continue
            shown = ast.unparse(value.value)
            spec = ast.unparse(value.format_spec) if value.format_spec else ""
            number = re.search(r"len\(|total\(|\bcount\b|\bshared\b|\bcounts?\b", shown) or "," in spec
            whole = isinstance(before, ast.Constant) and re.search(r"(^| any) of (all )?$", str(before.value))
            if number and not whole and plural.match(str(after.value)) and shown not in NOT_ALONE:
                yield f"line {value.lineno}: {shown}{str(after.value)[:30]}"


def test_no_number_is_followed_by_a_plural_that_one_thing_would_have_too() -> None:
    trees = {str(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")}
    known = nouns(trees)
    assert {"utterance", "recording", "row", "epoch"} <= known
    found = [f"{path} {line}; use errors.counted" for path, tree in trees.items() for line in plurals(tree, known)]
    assert not found, "\n".join(found)


def test_the_search_finds_what_it_is_for() -> None:
    tree = ast.parse("f'{len(rows)} rows', f'{count:,} test rows', f'{a} of {len(b)} rows', f'{len(members)} rows'")
    assert [line.split(": ")[1] for line in plurals(tree, {"row"})] == ["len(rows) rows", "count test rows"]
