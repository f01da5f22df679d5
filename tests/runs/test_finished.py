import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from report.written import Written, change_json
from serfit.errors import UserError
from serfit.runs.directory import CONFIG, ENVIRONMENT, FINISHED, METRICS, PREDICTIONS, SCORES
from serfit.runs.finished import finished_directories, flatten, read_run

Write = Callable[..., Written]


def test_a_run_comes_back_as_it_was_written(write_run: Write) -> None:
    written = write_run("alpha", 3, 7, dimensions=("valence", "arousal", "dominance"), noise=0.9)
    run = read_run(written.directory)
    assert (run.name, run.fold, run.seed, run.corpus, run.folds) == ("alpha", 3, 7, "iemocap", 5)
    assert run.dimensions == ("valence", "arousal", "dominance")
    assert run.predictions.ids == written.predictions.ids
    np.testing.assert_allclose(run.predictions.targets, written.predictions.targets, atol=1e-9)
    np.testing.assert_allclose(run.predictions.values, written.predictions.values, atol=1e-9)
    assert run.scores.test == written.predictions.scores()
    assert run.scores.best_epoch == 2
    assert [record.epoch for record in run.records] == [1, 2, 3]
    assert run.scores.validation == run.records[1].validation
    assert run.utterances == 240


def test_flatten_joins_keys_and_keeps_lists_and_empty_sections() -> None:
    nested = {"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": {}}
    assert flatten(nested) == {"a.b.c": 1, "a.d": [1, {"e": 2}], "f": {}}


@pytest.mark.parametrize(
    ("scheme", "recorded", "folds"),
    [
        ("official", None, 1),
        ("grouped_kfold", None, 7),
        ("leave_one_session_out", None, None),
        ("leave_one_session_out", 3, 3),
    ],
)
def test_the_number_of_folds(write_run: Write, scheme: str, recorded: int | None, folds: int | None) -> None:
    changes = {"data.split.scheme": scheme, "data.split.folds": 7}
    written = write_run(corpus="csv", changes=changes, environment={} if recorded is None else {"folds": recorded})
    assert read_run(written.directory).folds == folds


def test_only_directories_with_a_marker_are_found_in_the_order_of_their_names(write_run: Write) -> None:
    second, first = write_run("beta").directory, write_run("alpha").directory
    write_run("gamma", finished=False)
    (first.parent / "note.txt").write_text("hello")
    (first.parent / "foreign").mkdir()
    assert finished_directories(first.parent) == [first, second]


def test_a_missing_folder_is_an_error_that_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere; name the folder of the run directories"):
        finished_directories(tmp_path / "nowhere")


def test_unfinished_and_missing_directories_say_so(write_run: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"is not a finished run: it has no file {FINISHED}"):
        read_run(write_run(finished=False).directory)
    with pytest.raises(UserError, match=r"nowhere is not a run directory: it doesn't exist"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [CONFIG, ENVIRONMENT, SCORES, METRICS, PREDICTIONS])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe\x00", b'{"a": 1}', b"a,b\n1,2\n"])
def test_a_broken_file_is_one_sentence_that_names_it(write_run: Write, name: str, content: bytes | None) -> None:
    directory = write_run().directory
    if name == METRICS and content == b"":
        return  # a run without epochs has nothing wrong to read
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_run(directory)
    message = str(caught.value)
    assert name in message
    assert str(directory) in message
    assert "\n" not in message


def test_scores_that_are_not_those_of_the_predictions_are_refused(write_run: Write) -> None:
    directory = write_run().directory
    change_json(directory / SCORES, lambda data: data["test"]["valence"].update(ccc=0.99))
    with pytest.raises(
        UserError, match=r"scores.json says that the CCC of valence is 0.99, but predictions.csv gives 0\."
    ):
        read_run(directory)
    change_json(directory / SCORES, lambda data: data["test"].pop("valence"))
    with pytest.raises(UserError, match="they are from different runs"):
        read_run(directory)


def test_a_column_that_was_taken_away_is_noticed(write_run: Write) -> None:
    directory = write_run().directory
    text = (directory / PREDICTIONS).read_text()
    (directory / PREDICTIONS).write_text(text.replace("arousal_predicted", "other"))
    with pytest.raises(
        UserError, match=r"scores.json scores valence, arousal, but predictions.csv has columns of valence"
    ):
        read_run(directory)
    assert json.loads((directory / SCORES).read_text())["test"]["arousal"]["ccc"] is not None


@pytest.mark.parametrize("folds", [0, -1, 10**12, 10**400, float("inf")])
def test_a_number_of_folds_that_cannot_be_costs_no_memory(write_run: Write, folds: float) -> None:
    written = write_run(corpus="csv", changes={"data.split.scheme": "leave_one_session_out"}, environment={"folds": 3})
    environment = json.loads((written.directory / ENVIRONMENT).read_text())
    (written.directory / ENVIRONMENT).write_text(json.dumps(environment | {"folds": folds}))
    with pytest.raises(UserError, match=r"environment\.json: folds is .*; move the run directory"):
        read_run(written.directory)
