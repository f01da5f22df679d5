"""What the READMEs say is what happens: their commands, to the letter, on a tiny corpus and a tiny encoder.

A stand-in for `uv` puts the tiny settings behind the commands that load an encoder, so that they stay as they are.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from serfit.cli import app, main
from support import PATIENCE, small_release

REPOSITORY = Path(__file__).parents[1]
READMES = ("README.md", "README.zh-CN.md")
TINY = "model.params.speech_encoder=random:tiny train.epochs=1 features.store=wavlm_cache"
UV = shutil.which("uv")

SHIM = f"""#!/usr/bin/env bash
case "$*" in *src/train.py*|*"serfit check"*) set -- "$@" {TINY} ;; esac
exec {UV} "$@"
"""

needs_uv = pytest.mark.skipif(UV is None, reason="uv is not installed")


def blocks(readme: str) -> list[str]:
    """The bash blocks of a README."""
    return re.findall(r"^```bash\n(.*?)^```", (REPOSITORY / readme).read_text(), flags=re.M | re.S)


def block(*parts: str) -> str:
    """The one block of README.md that contains all the parts."""
    (found,) = [text for text in blocks("README.md") if all(part in text for part in parts)]
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the checkout and runs its code, with a tiny corpus where configs/*.yaml expect one."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("src", "pyproject.toml", "uv.lock", "README.md", "LICENSE"):
        (folder / name).symlink_to(REPOSITORY / name)
    for name in ("configs", "scripts"):
        shutil.copytree(REPOSITORY / name, folder / name)
    small_release(folder / "data" / "IEMOCAP_full_release", dialogues=2, turns=3, seconds=0.2)
    (folder / "bin").mkdir()
    (folder / "bin" / "uv").write_text(SHIM)
    (folder / "bin" / "uv").chmod(0o755)
    return folder


def shell(checkout: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user would, in this test's environment instead of a freshly synced one."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("IEMOCAP", "CUDA"))}
    environment |= {"UV_NO_SYNC": "1", "UV_PROJECT": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{checkout / 'bin'}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def finished(checkout: Path) -> list[str]:
    return sorted(path.parent.name for path in (checkout / "runs").glob("*/FINISHED"))


def command(checkout: Path, run: str) -> list[str]:
    """The command that made a run, as the run recorded it."""
    recorded: list[str] = json.loads((checkout / "runs" / run / "environment.json").read_text())["command"]
    return recorded


def test_both_readmes_give_the_same_commands() -> None:
    assert blocks("README.md") == blocks("README.zh-CN.md")


@pytest.mark.parametrize("readme", READMES)
def test_links_and_verbs_in_the_readmes_exist(readme: str) -> None:
    text = (REPOSITORY / readme).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (REPOSITORY / target).exists(), target
    for path in re.findall(r"`((?:configs|scripts|docs|src)/[\w./-]+)`", text):
        assert (REPOSITORY / path).exists() or path == "configs/finetune_full.yaml", path
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    for verb in re.findall(r"uv run serfit (\w+)", text):
        assert verb in known | {"cache"}


def test_nothing_has_a_release_date_before_it_is_released() -> None:
    unreleased = "(unreleased)" in (REPOSITORY / "CHANGELOG.md").read_text()
    assert unreleased != ("date-released" in (REPOSITORY / "CITATION.cff").read_text())


def first_and_last(loop: str) -> str:
    """A loop over all five folds as one over two of them, to save time."""
    assert "for FOLD in 1 2 3 4 5; do" in loop
    return loop.replace("1 2 3 4 5", "1 5")


def trained_in_a_loop(checkout: Path, loop: str) -> set[str]:
    """The runs that a loop of the README over the folds makes."""
    before = set(finished(checkout))
    done = shell(checkout, first_and_last(loop))
    assert done.returncode == 0, done.stderr
    made = set(finished(checkout)) - before
    assert sorted(re.findall(r"fold(\d)", " ".join(made))) == ["1", "5"]
    assert made == {name for name in made if "configs/finetune_full.yaml" in command(checkout, name)}
    return made


@pytest.mark.slow
@needs_uv
def test_the_readme_from_check_to_comparison(checkout: Path) -> None:
    """Every block, in the README's order; each sees what the ones before it left behind."""
    looked = shell(checkout, block("serfit check"))
    assert looked.returncode == 0, looked.stderr
    assert "this experiment can be trained" in looked.stdout

    verified = shell(checkout, block("verify_finetune.sh"))
    assert verified.returncode == 0, verified.stderr
    for part in ("device: ", "ccc_v: ", "0.5896", "0.6867", "0.6381", "not comparable"):
        assert part in verified.stdout
    assert len(finished(checkout)) == 1

    on_gpu, with_settings = block("--gpu 0").strip().splitlines()
    trained = shell(checkout, on_gpu)
    if torch.cuda.is_available():
        assert trained.returncode == 0, trained.stderr
    else:
        assert trained.returncode == 2
        assert "GPU 0 doesn't exist" in trained.stderr
        assert len(list((checkout / "runs").glob("*/"))) == 1
    trained = shell(checkout, with_settings)
    assert trained.returncode == 0, trained.stderr

    full = shell(checkout, block("cp configs") + "diff configs/finetune.yaml configs/finetune_full.yaml || true")
    assert re.findall(r"^[<>].*", full.stdout, flags=re.M) == ["<   epochs: 20", ">   epochs: 50"]

    by_one = trained_in_a_loop(checkout, block("for FOLD", "--fold $FOLD\ndone"))
    parallel = block("for FOLD", "CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        refused = shell(checkout, first_and_last(parallel))
        assert refused.stderr.count("asks for GPUs, but torch sees none") == 2
        parallel = parallel.replace("--fold $FOLD &", "--fold $FOLD --cpu &")
    assert not by_one & trained_in_a_loop(checkout, parallel)

    watched = shell(checkout, block("LATEST_RUN").replace("tail -f", "tail"))
    assert "saved: runs/ema_iemocap_finetune_" in watched.stdout

    seen = shell(checkout, block("serfit watch"))
    assert seen.returncode == 0, seen.stderr
    assert "ema_iemocap_finetune" in seen.stdout

    stored = shell(checkout, block("ls -lh").replace("/tmp/wavlm_cache", "wavlm_cache"))
    assert int(stored.stdout) > 1, "nothing where the recipes keep their store"

    planned = shell(checkout, block("serfit cv").replace("serfit cv", "serfit cv --help"))
    assert planned.returncode == 0, planned.stderr

    compared = shell(checkout, block("serfit compare"))
    assert compared.returncode == 0, compared.stderr
    table = (checkout / "runs" / "experiment_comparison.md").read_text()
    assert "ema_iemocap_finetune" in table
    assert "±" in table


@pytest.mark.slow
@needs_uv
def test_what_was_trained_is_used_as_the_readme_says(checkout: Path) -> None:
    """A run, made here if need be, labels recordings, is exported, and is asked from a program."""
    if not finished(checkout):
        made = shell(checkout, "uv run python src/train.py --config configs/finetune.yaml --fold 1")
        assert made.returncode == 0, made.stderr
    (checkout / "recordings").mkdir()
    sentence = next((checkout / "data").rglob("sentences/wav/*/*.wav"))
    shutil.copy(sentence, checkout / "recordings" / "one.wav")

    used = shell(checkout, block("serfit predict", "$RUN"))
    assert used.returncode == 0, used.stderr
    assert "one.wav" in (checkout / "labels.csv").read_text()
    assert "one.wav" in (checkout / "curves.csv").read_text()
    assert len(list((checkout / "pictures").glob("*.svg"))) == 2
    assert "serfit" in (checkout / "my-model" / "README.md").read_text()

    served = shell(checkout, block("serfit serve").strip() + " --help")
    assert served.returncode == 0, served.stderr

    (program,) = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "README.md").read_text(), flags=re.M | re.S)
    (checkout / "program.py").write_text(program)
    asked = shell(checkout, "uv run python program.py")
    assert asked.returncode == 0, asked.stderr
    assert "'valence'" in asked.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    ["data.loader.batch_size=2 train.accumulation_steps=4", "data.loader.batch_size=8 train.accumulation_steps=1"],
)
def test_the_variants_of_the_guide(checkout: Path, monkeypatch: pytest.MonkeyPatch, settings: str) -> None:
    """Settings against lack of memory and slowness."""
    monkeypatch.chdir(checkout)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--config", "configs/finetune.yaml", "--fold", "3", *f"{TINY} {settings}".split()])
    assert not ended.value.code
