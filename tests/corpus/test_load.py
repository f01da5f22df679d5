"""From the configuration's data section to a corpus."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from serfit.config.schema import Data, TableColumns
from serfit.corpus import load
from serfit.corpus.load import check_rated, languages, load_corpus
from serfit.corpus.synthetic.release import ReleaseUtterance, write_release
from serfit.corpus.utterance import Corpus, Release, Utterance
from serfit.errors import UserError
from serfit.labels import LabelScale


def write_table(root: Path, arousal: str) -> Data:
    (root / "a.wav").touch()
    (root / "table.csv").write_text(f"path,V,A\na.wav,0.5,{arousal}\n")
    table = TableColumns(path=Path("table.csv"), valence="V", arousal="A")
    return Data(
        corpus="csv", root=root, table=table, scales={"valence": (-2, 2), "arousal": (1, 5), "dominance": (0, 1)}
    )


def test_iemocap_keeps_a_rating_off_its_scale_and_notes_it(tmp_path: Path) -> None:
    samples = np.zeros(160, dtype=np.float32)
    write_release(tmp_path, [ReleaseUtterance("Ses01F_impro01_F000", 0.0, 1.0, "hap", 5.5, 3.0, 0.5, "Yes!", samples)])
    corpus = load_corpus(Data(root=tmp_path))
    assert corpus.utterances[0].ratings == {"valence": 5.5, "arousal": 3.0, "dominance": 0.5}
    assert "2 ratings off the scale" in corpus.notes[1]


def test_a_table_brings_the_scales_of_the_trained_dimensions(tmp_path: Path) -> None:
    corpus = load_corpus(write_table(tmp_path, "4"))
    assert corpus.scales == {"valence": LabelScale(-2, 2), "arousal": LabelScale(1, 5)}
    assert corpus.utterances[0].ratings == {"valence": 0.5, "arousal": 4.0}


def test_the_name_is_the_given_one_or_the_readers(tmp_path: Path) -> None:
    data = write_table(tmp_path, "4")
    assert load_corpus(data).name == "table.csv"
    named = Data.model_validate(data.model_dump() | {"name": "Mein <Korpus>", "language": "de, en"})
    assert load_corpus(named).name == "Mein <Korpus>"
    assert languages({"data.language": named.language}, "Mein <Korpus>") == ("de", "en")
    for key, value in (("name", ""), ("name", "a\x1b]0;x\x07"), ("name", "a\nb"), ("language", "German")):
        with pytest.raises(ValidationError, match=f"(?s){key}.*should"):
            Data.model_validate(data.model_dump() | {key: value})


def test_a_table_must_keep_to_its_scale(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 2: arousal is 6 \(column A\), off the declared scale"):
        load_corpus(write_table(tmp_path, "6"))


def test_the_root_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_table(tmp_path, "4")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_corpus(data.model_copy(update={"root": Path("~")})).utterances[0].path == tmp_path / "a.wav"


def test_utterances_without_a_trained_rating_are_counted_and_named() -> None:
    utterances = tuple(Utterance(name, Path(name), {"valence": 1.0} if name in "ab" else {}) for name in "abcdefg")
    check_rated(Corpus("toy", utterances[:2], {}), ("valence",))
    with pytest.raises(UserError) as caught:
        check_rated(Corpus("toy", utterances, {}), ("valence",))
    assert str(caught.value) == (
        "5 of 7 utterances of toy have no valence: c, d, e and 2 more; remove them from the corpus, or valence from "
        "data.dimensions"
    )


def test_no_corpus_comes_out_without_its_ratings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = Corpus("iemocap", (Utterance("a", Path("a.wav"), {"valence": 1.0}),), {})
    monkeypatch.setattr(load, "release", lambda name: Release(lambda root: half, LabelScale(1, 5), "en"))
    assert load_corpus(Data(root=tmp_path, dimensions=("valence",))) == half
    with pytest.raises(UserError, match="1 of 1 utterances of iemocap have no arousal: a;"):
        load_corpus(Data(root=tmp_path))


@pytest.mark.parametrize("name", load.RELEASES)
def test_every_corpus_of_the_schema_has_a_module_of_its_name(name: str, tmp_path: Path) -> None:
    found = load.release(name)
    assert isinstance(found, Release)
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        found.read(tmp_path)
    assert languages({}, name)
    assert load.rating_scales(Data(corpus=name, root=tmp_path, dimensions=("dominance",))) == {"dominance": found.scale}


def test_a_table_is_no_release() -> None:
    assert "csv" not in load.RELEASES
    assert languages({}, "csv") == ()


def test_reading_a_corpus_never_imports_torch() -> None:
    modules = "serfit.corpus.load, serfit.corpus.folds, serfit.scores.scenario, serfit.corpus.synthetic.release"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
