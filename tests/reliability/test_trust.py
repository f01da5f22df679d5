"""No code comes in with data: what in the sources could load it."""

import ast
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[2] / "src").rglob("*.py"))

FORBIDDEN = ("pickle.load", "pickle.loads", "dill", "joblib", "shelve", "marshal", "eval", "exec", "yaml.load")


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Every call in a file with its dotted name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            found.append((ast.unparse(node.func), node))
    return found


def complaints(path: Path) -> list[str]:
    """Calls that could execute what a file holds."""
    bad = []
    for name, call in calls(path):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name in FORBIDDEN or name.split(".")[0] in ("dill", "joblib", "shelve", "marshal"):
            bad.append(f"{path.name}:{call.lineno} {name}")
        if name == "torch.load" and keywords.get("weights_only") != "True":
            bad.append(f"{path.name}:{call.lineno} torch.load without weights_only=True")
        if name in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False":
            bad.append(f"{path.name}:{call.lineno} {name} with pickles")
        if "trust_remote_code" in keywords and keywords["trust_remote_code"] != "False":
            bad.append(f"{path.name}:{call.lineno} trusts remote code")
    return bad


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_that_executes_data_is_called(path: Path) -> None:
    assert complaints(path) == []


@pytest.mark.parametrize(
    "code",
    [
        "pickle.load(f)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "eval(x)",
        "joblib.load(f)",
        "Model.from_pretrained(x, trust_remote_code=True)",
        "yaml.load(text, Loader=yaml.Loader)",
    ],
)
def test_the_search_finds_what_it_looks_for(tmp_path: Path, code: str) -> None:
    (tmp_path / "x.py").write_text(code)
    assert complaints(tmp_path / "x.py")


def test_yaml_is_composed_safely() -> None:
    users = [path for path in SOURCES if "import yaml" in path.read_text(encoding="utf-8")]
    assert users, "the sources have moved; look for the YAML reader"
    for path in users:
        text = path.read_text(encoding="utf-8")
        assert any(word in text for word in ("SafeLoader", "safe_dump", "SafeDumper")), path
        assert not any(word in text for word in ("FullLoader", "UnsafeLoader", "unsafe_load", "full_load")), path
