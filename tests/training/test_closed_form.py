"""Folds and finished runs of what is fitted in closed form."""

from pathlib import Path

import pytest

from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError
from serfit.system.log import silent_log
from serfit.training.baselines import run_baseline
from serfit.training.closed_form import folds_of
from support import settings


def test_every_utterance_is_tested_in_one_fold(release: Path, tmp_path: Path) -> None:
    folds = list(folds_of(ExperimentConfig.model_validate(settings(release, tmp_path)), "straight"))
    assert [config.data.split.fold for config, _ in folds] == [1, 2, 3, 4, 5]
    assert {config.experiment.name for config, _ in folds} == {"tiny_straight"}
    tested = [utterance.id for _, material in folds for utterance in material.test.utterances]
    assert sorted(tested) == sorted(utterance.id for utterance in folds[0][1].corpus.utterances)


def test_a_fold_that_is_not_there_is_a_sentence(release: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fold"):
        run_baseline(ExperimentConfig.model_validate(settings(release, tmp_path)), silent_log(), fold=6)
    everything = ExperimentConfig.model_validate(settings(release, tmp_path, data__split__scheme="everything"))
    with pytest.raises(UserError, match="nothing to score"):
        run_baseline(everything, silent_log())
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
