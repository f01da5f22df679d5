"""The command line: what it says, how it exits, what it leaves behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from serfit.cli import app, cache, main
from support import config_file, small_release

VERBS = (
    *("train", "cv", "check", "watch", "compare", "report", "baseline", "probe", "verdict", "demo", "doctor"),
    *("cache show", "cache fill", "cache clear", "predict", "evaluate", "stream", "serve", "export", "calibration"),
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_release(tmp_path_factory.mktemp("iemocap"))


def exit_code(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    code = caught.value.code
    return 0 if code is None else int(code)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from serfit.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "train" in shown.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*verb.split(), "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Example: serfit {verb}" in shown


def test_a_run_from_the_command_line(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path)
    assert exit_code("train", "--config", config, "--fold", "2", "train.epochs=1", "--seed", "7") == 0
    shown = capsys.readouterr().out
    assert "fp32 on CPU with" in shown
    assert "fold 2 of 5, seed 7" in shown
    assert "data: tests on Ses02" in shown
    (run,) = (tmp_path / "runs").glob("tiny_fold2_seed7_*")
    assert f"saved: {run}" in shown.replace("\n", "")
    assert (tmp_path / "runs" / "experiment_comparison.md").is_file()
    assert exit_code("compare", tmp_path / "runs") == 0
    assert "tiny" in capsys.readouterr().out
    assert exit_code("verdict", run) == 0
    assert "0.5896" in capsys.readouterr().out
    assert exit_code("cache", "show", "--store", tmp_path / "store") == 0
    assert "output of the CNN" in capsys.readouterr().out
    assert exit_code("cache", "clear", "--store", tmp_path / "store") == 0
    assert "freed" in capsys.readouterr().out
    assert exit_code("train", "--resume", run) == 2
    assert "is finished and is never changed" in capsys.readouterr().err
    assert exit_code("train", "--config", run / "config.json", "train.epochs=1") == 0
    assert len(list((tmp_path / "runs").glob("tiny_fold2_seed7_*"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("named", ["{config} --encoders random:tiny random:tiny-base features.dtype=float16",
    "features.dtype=float16 random:tiny-base --config {config} --encoders random:tiny"])  # fmt: skip
def test_encoders_to_probe_follow_one_another(
    named: str, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path)
    assert exit_code("probe", *named.format(config=config).split()) == 0
    shown = capsys.readouterr().out
    for encoder in ("random:tiny", "random:tiny-base"):
        assert f"{encoder} on iemocap: test CCC" in shown
        assert f"\n{encoder}: chosen layer, on validation: layer " in shown
        assert f"\n{encoder}: chosen of all minus hand-made: CCC-V " in shown
        assert f"\nwhat fine-tuning {encoder} would cost:\n" in shown
    assert f"written: {tmp_path}/runs/tiny_probe/layers.md" in shown
    assert exit_code("cache", "show", "--store", tmp_path / "store") == 0
    kept = capsys.readouterr().out
    assert "mean and standard deviation over time of every hidden state of random:tiny-base, 40 utterances" in kept
    assert "in float16" in kept


def test_check_tells_what_would_happen(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path)
    assert exit_code("check", "--config", config) == 0
    shown = capsys.readouterr().out
    assert "train: 24 utterances" in shown
    for name in ("valence", "arousal"):
        assert re.search(rf"^{name}: mean [\d.]+, .* on a scale of 1 to 5, 3 raters each$", shown, re.MULTILINE), shown
    assert "predicted GPU memory: below 0.1 GiB" in shown
    assert "an epoch about" in shown
    assert not (tmp_path / "runs").exists()


BAD = {
    "two answers to one question": (["--config", "{config}", "--gpu", "0", "--gpus", "0,1"], "give one of them"),
    "no list of GPUs": (["--config", "{config}", "--gpus", "all"], "for example 0,1"),
    "no config": ([], "no configuration given"),
    "missing config": (["--config", "{tmp}/nothing.yaml"], "nothing.yaml"),
    "misspelt key": (["--config", "{config}", "train.epoch=5"], "train.epochs"),
    "two mistakes": (
        ["--config", "{config}", "train.epochs=many", "data.loader.batch_size=0"],
        r"many[\s\S]*batch_size",
    ),
    "a head beyond all memory": (["--config", "{config}", "model.params.head_hidden=10000000000"], "at most 65536"),
    "missing corpus": (["--config", "{config}", "data.root={tmp}/nowhere"], "nowhere.*Session"),
    "fold out of range": (["--config", "{config}", "--fold", "9"], "fold 9|fold is 9|9"),
    "no such gpu": (["--config", "{config}", "--gpu", "99"], r"GPU 99 doesn't exist.*leave --gpu out"),
    "no such encoder": (
        ["--config", "{config}", "model.params.speech_encoder=nobody/no-such-wavlm"],
        "can't be had.*hf download.*HF_ENDPOINT",
    ),
    "one utterance": (
        ["--config", "{config}", "data.loader.batch_size=1", "train.accumulation_steps=1"],
        "one utterance has no CCC",
    ),
    "a folder of runs to resume": (["--resume", "{tmp}"], "is not a run directory: it has no config.json"),
    "a file in the place of runs": (
        ["--config", "{config}", "experiment.runs_dir={config}"],
        "can't create the run directory.*choose a folder you may write to",
    ),
    "resume nothing": (["--resume", "{tmp}/nowhere"], "nowhere"),
    "resume with settings": (["--resume", "{tmp}", "train.epochs=3"], "goes on with a run exactly as it was begun"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_sentence_exit_code_2_and_no_directory(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path)
    arguments, message = BAD[case]
    assert exit_code("train", *(part.format(config=config, tmp=tmp_path) for part in arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert re.search(message, said), said
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_check_refuses_folders_that_cannot_be_written(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path)
    assert exit_code("check", "--config", config, f"experiment.runs_dir={config}/runs") == 2
    assert f"{config} is a file; name a folder" in capsys.readouterr().err
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    assert exit_code("check", "--config", config, f"features.store={tmp_path}/a/b") == 2
    assert f"experiment.runs_dir is {tmp_path}/runs, but {tmp_path} can't be written to" in capsys.readouterr().err


def test_python_without_docstrings_is_refused_in_a_sentence() -> None:
    call = [sys.executable, "-OO", "-c", "from serfit.cli import main; main(['--version'])"]
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.startswith("error: PYTHONOPTIMIZE=2")) == (2, True)


def test_broken_audio_is_named_before_anything_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = small_release(tmp_path / "iemocap")
    wavs = sorted(root.rglob("*.wav"))
    wavs[3].write_bytes(b"")
    wavs[9].write_bytes(b"RIFF nonsense")
    wavs[20].write_bytes(wavs[20].read_bytes()[:44])
    config = config_file(tmp_path / "tiny.yaml", root, tmp_path)
    assert exit_code("train", "--config", config) == 2
    said = capsys.readouterr().err
    assert "3 of 40 utterances can't be used" in said
    assert all(wavs[index].stem in said for index in (3, 9, 20))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_cross_validation_fills_the_store_once_runs_all_and_answers(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(tmp_path / "tiny.yaml", release, tmp_path, train__epochs=1)
    command = ("cv", config, "--folds", "1-2", "--slots", "1", "model.params.freeze_speech_encoder=true")
    assert exit_code(*command) == 0
    said = capsys.readouterr().out
    assert "2 runs, 0 of them finished, 1 slot\n" in said
    assert len(list((tmp_path / "runs").glob("tiny_fold[12]_seed1_*/FINISHED"))) == 2
    assert len(list((tmp_path / "store").rglob("*.safetensors"))) == 40
    assert (tmp_path / "runs" / "experiment_comparison.md").is_file()
    assert (tmp_path / "runs" / "report.html").is_file()
    assert exit_code(*command) == 0
    assert "2 runs, 2 of them finished" in capsys.readouterr().out


@pytest.mark.parametrize("group", [app, cache.app], ids=["serfit", "serfit cache"])
def test_summaries_are_whole(group: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        group(["--help"], prog_name="serfit")
    shown = capsys.readouterr().out
    assert "..." not in shown.partition("Commands:")[2]
    for command in group.registered_commands:
        assert command.short_help, command
        assert f"{command.short_help}\n" in shown


def test_examples_can_be_copied_from_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for group, before in ((app, []), (cache.app, ["cache"])):
        for command in group.registered_commands:
            assert command.callback is not None
            name = command.callback.__name__
            (example,) = re.findall(r"Example: (serfit .*)", command.callback.__doc__ or "")
            assert exit_code(*before, name, "--help") == 0
            assert f"{example}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "train --epochs 3",
            "error: no such option: --epochs; settings of the configuration follow without dashes: "
            "train.epochs=VALUE\n",
        ),
        ("train --batch-size=3", "without dashes: data.loader.batch_size=VALUE\n"),
        ("cv --train.epochs=3", "without dashes: train.epochs=VALUE\n"),
        ("watch --epochs 3", "error: no such option: --epochs; see serfit watch --help\n"),
        ("train --fold x", "; see serfit train --help\n"),
        ("trian", "error: no such command"),
        ("export", "error: missing argument"),
        ("train --config nowhere.yaml", "error: there is no configuration file nowhere.yaml"),
    ],
)
def test_every_mistake_has_one_prefix_one_hint_and_no_traceback(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*arguments.split()) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert "Error" not in shown


def test_without_arguments_everything_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code() == 2
    shown = "".join(capsys.readouterr())
    assert "Usage: serfit" in shown
    assert "error: " not in shown


def test_ctrl_c_and_a_file_that_ends_too_early_arent_taken_for_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def ended(*_: object) -> None:
        raise EOFError("an own mistake")

    monkeypatch.setattr("serfit.report.compare.chosen_directories", interrupted)
    assert exit_code("compare", "runs") == 130
    assert capsys.readouterr().err == "stopped: by Ctrl-C\n"
    monkeypatch.setattr("serfit.report.compare.chosen_directories", ended)
    with pytest.raises(EOFError, match="an own mistake"):
        exit_code("compare", "runs")


def test_a_broken_link_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """configs/demo.yaml is a link; copied alone it leads nowhere."""
    (tmp_path / "demo.yaml").symlink_to("../src/serfit/cli/demo.yaml")
    assert exit_code("check", "--config", tmp_path / "demo.yaml") == 2
    said = capsys.readouterr().err
    assert "demo.yaml is a link to ../src/serfit/cli/demo.yaml, which isn't there; copy the file itself" in said
