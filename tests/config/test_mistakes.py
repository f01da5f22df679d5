"""Every mistake in a configuration in a sentence."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from config.texts import SMALL
from serfit.config.keys import schema_keys
from serfit.config.load import flatten, load_config
from serfit.config.schema import ExperimentConfig
from serfit.errors import UserError


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train: {epochs: twenty}", 'train.epochs is "twenty"; it must be a whole number of 1 or more'),
        ("train: {epochs: 0}", "train.epochs is 0; it must be a whole number of 1 or more"),
        ("train: {epochs: 1.5}", "train.epochs is 1.5; it must be a whole number of 1 or more"),
        ("train: {epochs: true}", "train.epochs is true; it must be a whole number of 1 or more"),
        ("train: {epochs: }", "train.epochs has no value; it must be a whole number of 1 or more"),
        ("train: {epochs: [1]}", "train.epochs is [1]; it must be a whole number of 1 or more"),
        ("train: {grad_clip: .inf}", "train.grad_clip is Infinity; it must be a number of 0 or more and finite"),
        ("train: {grad_clip: 1e999}", "train.grad_clip is Infinity; it must be a number of 0 or more and finite"),
        ("train: {grad_clip: 'nan'}", 'train.grad_clip is "nan"; it must be a number of 0 or more and finite'),
        ("train: {optimizer: {lr: -1}}", "train.optimizer.lr is -1; it must be a number above 0"),
        ("train: {gradient_checkpointing: maybe}", 'train.gradient_checkpointing is "maybe"; it must be true or false'),
        ("train: {precision: fp16}", 'train.precision is "fp16"; it must be auto, fp32 or bf16'),
        (
            "train: {loss: {weights: {valence: x}}}",
            'train.loss.weights.valence is "x"; it must be a number of 0 or more',
        ),
        (
            "train: {loss: {weights: {valense: 1}}}",
            "unknown key train.loss.weights.valense; did you mean train.loss.weights.valence?",
        ),
        (
            "train: {loss: {weights: {valence: true}}}",
            'train.loss.weights is {"valence": true}; it must be a mapping from valence, arousal or dominance to '
            "a number of 0 or more",
        ),
        ("train: {epoch: 3}", "unknown key train.epoch; did you mean train.epochs?"),
        ("train: {batch_size: 3}", "unknown key train.batch_size; did you mean data.loader.batch_size?"),
        ("trian: {epochs: 3}", "unknown key trian; did you mean train?"),
        ("train: 5", "train is 5; it must be a section with keys such as epochs, accumulation_steps, grad_clip"),
        (
            "train: [epochs]",
            'train is ["epochs"]; it must be a section with keys such as epochs, accumulation_steps, grad_clip',
        ),
        (
            "train: {loss: {weights: {dominance: 1}}}",
            "train.loss.weights names dominance, which data.dimensions doesn't train",
        ),
        ("features: {store: 3}", "features.store is 3; it must be a path, or null"),
        (
            "model: {params: {speech_encoder: 3}}",
            'model.params.speech_encoder is 3; it must be text; put quotes around it ("3") if it is text',
        ),
        (
            "model: {params: {freeze_cnn: false, freeze_layers: 2}}",
            "model.params.freeze_layers needs freeze_cnn: true, for the CNN lies below the layers",
        ),
        (
            "train: {epochs: '${E}'}",
            "train.epochs needs the environment variable E, which isn't set; export E=..., or write ${E:-default}",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(told, line, sentence):
    assert told(SMALL + line) == [f"x.yaml line 3: {sentence}"]


def test_the_rules_of_sections_name_the_line_of_their_key(told):
    assert told(SMALL + "train:\n  epochs: 3\n  loss:\n    mse_share: 1\n    weights: {dominance: 1}") == [
        "x.yaml line 7: train.loss.weights names dominance, which data.dimensions doesn't train"
    ]


def test_missing_keys_are_named_with_what_they_take(told):
    assert told("train: {}") == [
        "x.yaml: data.root is missing; it must be a path",
        'x.yaml: experiment.name is missing; it must be text of letters, digits, ".", "_" and "-", beginning with a '
        "letter or digit",
    ]
    assert told("experiment:\n  name: a\ndata:\n  corpus: iemocap") == [
        "x.yaml line 3: data.root is missing; it must be a path"
    ]


def test_all_mistakes_are_told_together_in_reading_order(told):
    lines = told(
        "experiment: {name: a b}\ndata:\n  root: ${UNSET}\n  split: {fold: one, folds: 2}\n"
        "  dimensions: [valence, joy]\n"
        "  table: {path: p, valence: [1], speaker: 3}\n  scales: {valence: [1], arousel: [1, 2]}\ntrain:\n  epochs: 0\n"
        "  epochs: 1\n  grad_clip: .nan\nzzz: 1\n",
        "train.epochz=1",
        "train.accumulation_steps=none",
        "train",
        "=3",
        "train..epochs=1",
        "data.loader.workers=[",
    )
    assert [line.split(": ")[0] for line in lines] == [
        "x.yaml line 1",
        "x.yaml line 3",
        "x.yaml line 4",
        "x.yaml line 4",
        "x.yaml line 5",
        "x.yaml line 6",
        "x.yaml line 6",
        "x.yaml line 7",
        "x.yaml line 7",
        "x.yaml line 9",
        "x.yaml line 10",
        "x.yaml line 11",
        "x.yaml line 12",
        "override train.epochz=1",
        "override train.accumulation_steps=none",
        "override train",
        "override =3",
        "override train..epochs=1",
        "override data.loader.workers=[",
    ]
    assert lines[-4:-1] == [
        f"override {text}: not of the form key=value; write it like train.epochs=10"
        for text in ("train", "=3", "train..epochs=1")
    ]
    assert not any("Input should" in line or "Value error" in line for line in lines)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trian.epochs=3", "unknown key trian.epochs; did you mean train.epochs?"),
        ("epochs=3", "unknown key epochs; did you mean train.epochs?"),
        ("train.epochs.x=3", "unknown key train.epochs.x; train.epochs must be a whole number of 1 or more"),
        ("train.epochs=twenty", 'train.epochs is "twenty"; it must be a whole number of 1 or more'),
        ("train.optimizer={lr: 1, encoder_lr: -1}", "train.optimizer.encoder_lr is -1; it must be a number above 0"),
        ("train={epochz: 1}", "unknown key train.epochz; did you mean train.epochs?"),
        ('experiment.runs_dir=""', 'experiment.runs_dir is ""; it must be a path'),
        ("features.store=None", 'features.store is "None"; it must be a path, or null; for none at all write null'),
        (
            "features.store=~nobody-of-this-name/x",
            "features.store is ~nobody-of-this-name/x, and that home folder isn't known; write the whole path",
        ),
        (
            "experiment.runs_dir=$HOME/runs",
            'experiment.runs_dir is "$HOME/runs"; write ${HOME}, or $$HOME for the characters themselves',
        ),
        (
            "data.root=${NO}",
            "data.root needs the environment variable NO, which isn't set; export NO=..., or write ${NO:-default}",
        ),
    ],
)
def test_mistakes_in_overrides_name_the_override(told, override, sentence):
    assert told(SMALL, "train.accumulation_steps=3", override) == [f"override {override}: {sentence}"]


def test_an_override_of_several_lines_is_told_in_one(told):
    assert told(SMALL, "train.epochs=\n  many\n") == [
        'override train.epochs= many: train.epochs is "many"; it must be a whole number of 1 or more'
    ]


def test_a_value_is_blamed_on_who_gave_it_last(told):
    text = SMALL + "data2: 1\ntrain:\n  loss: {weights: {valence: 1}}\n"
    lines = told(text, "train.loss.weights={valence: -1}")
    assert lines[1].startswith("override train.loss.weights={valence: -1}: train.loss.weights.valence is -1;")


def test_long_values_are_shortened(told):
    (line,) = told(SMALL + f"train: {{epochs: {'x' * 500}}}")
    assert len(line) < 160
    assert "xxx...; it must be" in line


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "x.yaml is empty; it must give at least experiment.name and data.root"),
        (b"# only a comment\n", "x.yaml is empty; it must give at least experiment.name and data.root"),
        (b"- a\n", "x.yaml holds a list; it must hold sections such as experiment: and data:, with keys in them"),
        (
            b"hello",
            "x.yaml holds a single value; it must hold sections such as experiment: and data:, with keys in them",
        ),
        (b"a:\n\tb: 1", "x.yaml line 2: a tab where YAML wants spaces; replace it by spaces"),
        (b"a: \xff", "x.yaml isn't UTF-8 text (byte 3); save it as UTF-8"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, monkeypatch, content, sentence):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_config(Path("x.yaml"), ["train.epochs=3"])
    assert str(raised.value) == sentence


def test_missing_files_and_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/finetune.yaml").touch()
    missing = "there is no configuration file"
    for path, sentence in {
        "configs/fintune.yaml": f"{missing} configs/fintune.yaml; did you mean configs/finetune.yaml?",
        "nowhere/x.yaml": f"{missing} nowhere/x.yaml; check the path given with --config",
        "configs": "configs is a folder; give the YAML file itself",
    }.items():
        with pytest.raises(UserError) as raised:
            load_config(Path(path))
        assert str(raised.value) == sentence


@given(text=st.text(max_size=60), override=st.text(max_size=20))
@settings(max_examples=150)
def test_whatever_is_in_a_file_it_loads_or_is_told(tmp_path_factory, text, override):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    with pytest.raises(UserError):  # no text this short gives a name and a root
        load_config(path, [override], {})


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(["", "x", "valence", "nan", "1e-4", "${X}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["valence", "path", "lr", "x", "1"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(values=st.dictionaries(st.sampled_from(sorted(schema_keys())), JUNK, min_size=1, max_size=4))
@settings(max_examples=150)
def test_junk_at_any_key_never_escapes_as_anything_but_sentences(tmp_path_factory, values):
    tree: dict[str, Any] = {"experiment": {"name": "a"}, "data": {"root": "r"}}
    for address, value in values.items():
        holder = tree
        for name in address[:-1]:
            holder = holder.setdefault(name, {}) if isinstance(holder, dict) else {}
        if isinstance(holder, dict):
            holder[address[-1]] = value
    path = tmp_path_factory.getbasetemp() / "junk.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    config, message = loaded_or_told(path)
    lines = message.splitlines()
    assert all(line.startswith(f"{path}") for line in lines)
    assert len(set(lines)) == len(lines)
    assert not any(word in message for word in ("Input should", "Value error", "Field required", "Extra inputs"))
    numbers = [value for value in flatten(config).values() if isinstance(value, float)] if config else []
    assert all(math.isfinite(number) for number in numbers)


def loaded_or_told(path: Path) -> tuple[ExperimentConfig | None, str]:
    try:
        return load_config(path, (), {}), ""
    except UserError as error:
        return None, str(error)
