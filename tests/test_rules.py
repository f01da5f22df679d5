"""The rules of the house that a machine can check: lengths, mirrored tests, names that exist, no watched clocks."""

import ast
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest

import serfit

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src" / "serfit"
TESTS = REPOSITORY / "tests"
PAGES = [path for folder in (REPOSITORY, REPOSITORY / "docs") for path in sorted(folder.glob("*.md"))]

MOST_LINES = 400
LONGEST_BODY = 60
LONGEST_STORY = 120
TEST_LINES_PER_SOURCE_LINE = 0.76

TESTED_ELSEWHERE = {
    "cli/options.py": "cli/test_cli.py",
    "cli/publishing.py": "inference/test_publishing.py",
    "cli/reading.py": "report/test_commands.py",
    "cli/serving.py": "inference/page/test_serving.py",
    "cli/training.py": "cli/test_cli.py",
    "cli/using.py": "inference/test_using.py",
    "cli/watching.py": "report/live/test_views.py",
    "cli/wording.py": "cli/test_cli.py",
    "corpus/names.py": "corpus/test_spelling.py",
    "corpus/rows.py": "corpus/test_table.py",
    "corpus/synthetic/release.py": "corpus/test_iemocap.py",
    "inference/begun.py": "training/test_start.py",
    "inference/public/audeering.py": "inference/public/test_importing.py",
    "inference/public/checkpoint.py": "inference/public/test_importing.py",
    "inference/public/odyssey.py": "inference/public/test_importing.py",
    "inference/public/vox_profile.py": "inference/public/test_importing.py",
    "inference/publish/card.py": "inference/publish/test_hub.py",
    "inference/publish/eight_bits.py": "inference/test_onnx.py",
    "inference/publish/export.py": "inference/test_onnx.py",
    "inference/publish/graph.py": "inference/test_onnx.py",
    "inference/publish/heldout.py": "inference/test_onnx.py",
    "inference/publish/tested.py": "inference/publish/test_hub.py",
    "nn/passes.py": "training/test_batches.py",
    "report/clips.py": "report/test_page.py",
    "report/drawing/svg.py": "report/test_page.py",
    "report/markdown.py": "report/test_compare.py",
    "runs/results.py": "report/test_text.py",
    "runs/unfinished.py": "training/test_resume.py",
    "sweep/child.py": "sweep/test_sweep.py",
    "system/records.py": "runs/test_finished.py",
    "training/filling.py": "cli/test_cli.py",
    "training/predictors.py": "training/test_evaluation.py",
}
"""Modules that no test of their own room imports, and the test that runs them."""

NOT_HERE = {
    "configs/finetune_full.yaml": "made by the reader of the README",
    "configs/fintune.yaml": "misspelt, to show the answer",
    "serfit.json": "a file of a bundle",
    "serfit.metrics": "where a module was, in the changelog",
    "test_ccc": "a key of a model card",
    "test_utterances": "a key of a bundle",
}
"""Names in prose that lead nowhere, and what they are."""


def modules(folder: Path) -> list[Path]:
    """Every module below a folder."""
    return sorted(folder.rglob("*.py"))


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def long_bodies(text: str) -> list[str]:
    """Functions whose body, without its docstring, is too long."""
    found = []
    for function in functions(ast.parse(text)):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        if lines > LONGEST_BODY:
            found.append(f"{function.name}: {lines} lines")
    return found


def long_module(text: str) -> list[str]:
    """The length of a module that is too long."""
    lines = len(text.splitlines())
    return [f"{lines} lines"] if lines > MOST_LINES else []


CLOCKS = {"time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns", "now"}
"""Functions that show the time on the wall; process_time is a process's own."""


def watched_clocks(text: str) -> list[str]:
    """Assertions that compare what a clock showed, or what was computed from it, within one function."""
    found = []
    for function in functions(ast.parse(text)):
        tainted: set[str] = set()

        def timed(node: ast.AST, tainted: set[str] = tainted) -> bool:
            return any(
                (isinstance(part, ast.Call) and ast.unparse(part.func).split(".")[-1] in CLOCKS)
                or (isinstance(part, ast.Name) and part.id in tainted)
                for part in ast.walk(node)
            )

        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and timed(node.value):
                tainted |= {
                    name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)
                }
            if isinstance(node, ast.Assert) and timed(node.test):
                found.append(f"{function.name}: line {node.lineno}")
    return found


def short_limits(text: str) -> list[str]:
    """Waits with a limit of their own, which a busy machine reaches, instead of support.PATIENCE."""
    return re.findall(r".*\b(?:timeout=|join\(|wait_for\()\d.*", text)


def prose(text: str) -> str:
    """The comments and docstrings of a module."""
    docstrings = (
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return "\n".join([*docstrings, *re.findall(r"(?:^|\s)#.*$", text, flags=re.M)])


def missing_paths(text: str) -> list[str]:
    """Paths in prose that lead nowhere, from the repository or, in backticks, from src/serfit; NAME is the reader's."""
    named = re.findall(r"(?<![\w/.:-])(?:benchmarks|configs|docs|scripts|src|tests)/[\w./-]*\w", text)
    rooms = "|".join(path.name for path in SOURCE.iterdir() if path.is_dir())
    inside = [f"src/serfit/{path}" for path in re.findall(rf"`((?:{rooms})/[\w/]*\w\.py)`", text)]
    missing = [path for path in dict.fromkeys(named + inside) if not (REPOSITORY / path).exists()]
    return [path for path in missing if path not in NOT_HERE and "NAME" not in path]


@cache
def names_of_tests() -> frozenset[str]:
    """The names of all tests, and of their files with and without the ending."""
    files = modules(TESTS)
    named = {found for path in files for found in re.findall(r"^\s*def (test_\w+)", text_of(path), flags=re.M)}
    return frozenset(named | {path.name for path in files} | {path.stem for path in files})


def missing_tests(text: str) -> list[str]:
    """Names of tests in prose that no test, and no file of tests, has."""
    wanted = dict.fromkeys(re.findall(r"(?<![\w.-])test_(?!NAME)\w+(?:\.py)?(?![\w/*])", text))
    return [name for name in wanted if name not in names_of_tests() and name not in NOT_HERE]


def missing_names(text: str) -> list[str]:
    """Dotted names below serfit in prose that aren't there; a name must be defined, not only imported."""
    wanted = dict.fromkeys(re.findall(r"(?<![\w/.@-])serfit(?:\.[A-Za-z_]\w*)+", text))
    public = {f"serfit.{name}" for name in serfit.__all__}
    return [name for name in wanted if not defined(name.split(".")[1:]) and name not in public | set(NOT_HERE)]


def defined(parts: list[str]) -> bool:
    """Whether a module, or a name at the top of one, or an attribute of a class there exists."""
    folder = SOURCE
    while parts and (folder / parts[0]).is_dir():
        folder, parts = folder / parts[0], parts[1:]
    module = folder / "__init__.py"
    if parts and (folder / f"{parts[0]}.py").exists():
        module, parts = folder / f"{parts[0]}.py", parts[1:]
    return (
        not parts
        or re.search(rf"^\s*(?:def|class) {parts[-1]}\b|^\s*{parts[-1]}\b *[:=]", text_of(module), re.M) is not None
    )


def untested(module: str) -> bool:
    """Whether neither a test of the module's name in its room exists, nor any test of the room imports it."""
    path = Path(module)
    if (TESTS / path.parent / f"test_{path.stem}.py").exists():
        return False
    *package, name = path.with_suffix("").parts
    dotted = ".".join(["serfit", *package])
    imported = re.compile(rf"{dotted}\.{name}\b|from {re.escape(dotted)} import [\w, ]*\b{name}\b")
    return not any(imported.search(text_of(test)) for test in modules(TESTS / path.parent))


def complaints(paths: Iterable[Path], rule: Callable[[str], list[str]], of: Callable[[str], str] = str) -> list[str]:
    """What a rule finds in files, each with its file."""
    return [f"{path.relative_to(REPOSITORY)}: {found}" for path in paths for found in rule(of(text_of(path)))]


def test_modules_and_functions_are_short() -> None:
    assert complaints([*modules(SOURCE), *modules(TESTS)], long_module) == []
    assert complaints([*modules(SOURCE), *modules(TESTS)], long_bodies) == []


def test_the_story_is_on_a_screen_and_a_half() -> None:
    assert len(text_of(SOURCE / "training" / "experiment.py").splitlines()) <= LONGEST_STORY


def test_there_is_enough_test_for_the_source() -> None:
    tests, source = (sum(len(text_of(path).splitlines()) for path in modules(of)) for of in (TESTS, SOURCE))
    assert tests >= TEST_LINES_PER_SOURCE_LINE * source


def test_every_module_is_tested_in_the_room_of_its_name() -> None:
    names = [str(path.relative_to(SOURCE)) for path in modules(SOURCE) if not path.name.startswith("__")]
    bare = [name for name in names if untested(name)]
    assert [name for name in bare if name not in TESTED_ELSEWHERE] == [], "name the test in TESTED_ELSEWHERE"
    assert [name for name in TESTED_ELSEWHERE if name not in bare] == [], "these need no exception any more"
    assert [test for test in TESTED_ELSEWHERE.values() if not (TESTS / test).exists()] == []


def test_nothing_is_asserted_about_wall_clock_time() -> None:
    assert complaints(modules(TESTS), watched_clocks) == []
    assert complaints([path for path in modules(TESTS) if path != Path(__file__)], short_limits) == []
    options = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["timeout"] >= 3600
    assert hypothesis.settings.default is not None
    assert hypothesis.settings.default.deadline is None


@pytest.mark.parametrize("rule", [missing_paths, missing_tests, missing_names])
def test_what_prose_names_exists(rule: Callable[[str], list[str]]) -> None:
    assert complaints(PAGES, rule) == []
    assert complaints([*modules(SOURCE), *modules(TESTS), *modules(REPOSITORY / "benchmarks")], rule, prose) == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (long_module, "x = 1\n" * 401),
        (long_bodies, "def f():\n" + "    x = 1\n" * 61),
        (watched_clocks, "def f():\n    t = perf_counter()\n    took = perf_counter() - t\n    assert took < 1\n"),
        (short_limits, "thread.join(5)"),
        (missing_paths, "see docs/nowhere.md"),
        (missing_paths, "run `src/serfit/nothing.py`"),
        (missing_paths, "begin with `nn/nothing.py`"),
        (missing_tests, "held by " + "test_that_nobody_wrote"),
        (missing_tests, "held by tests/" + "test_nothing.py"),
        (missing_names, "as in `serfit.nothing.here`"),
        (missing_names, "as in `serfit.errors.Nothing`"),
    ],
)
def test_each_rule_finds_what_it_is_for(rule: Callable[[str], list[str]], text: str) -> None:
    assert len(rule(text)) == 1


def test_what_keeps_a_rule_is_left_alone() -> None:
    assert long_bodies('def f():\n    """' + "Words.\n" * 90 + '"""\n    return 1\n') == []
    assert (
        watched_clocks("def test():\n    clock = [0.0]\n    assert clock[0] == 0\n    until = time.monotonic() + 9\n")
        == []
    )
    assert missing_paths("docs/architecture.md, tests/nn, benchmarks/ and https://x.org/docs/y") == []
    assert missing_names("serfit.errors.UserError, `serfit.load`, serfit.corpus.iemocap, serfit.runs") == []
    assert untested("errors.py") is False
    assert untested("nn/nothing.py")


def test_the_index_of_the_docs_names_every_page() -> None:
    index = REPOSITORY / "docs" / "index.md"
    pages = {page.name for page in index.parent.glob("*.md")} - {index.name}
    assert pages - set(re.findall(r"\]\(([\w-]+\.md)\)", index.read_text())) == set()
