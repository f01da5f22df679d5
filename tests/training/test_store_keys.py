"""The keys of stored features, literally: a refactoring that changes one would make every store compute anew."""

from pathlib import Path
from typing import Any

import pytest
import torch

from nn.small import build_hf
from serfit.config.schema import Augmentation, FeatureSettings, ModelParams
from serfit.nn.model import build_model
from serfit.system.precision import Precision
from serfit.training.features import build_features

KEYS = {
    ("wavlm", "base", "cnn"): "4f0f789ec51a66a256c13d50b0eff738",
    ("wavlm", "base", "layer"): "bd5ae4652e9658b09392946a3924efd9",
    ("wavlm", "base", "all"): "ef7c883eab7c05f575f74b55e5a75dcd",
    ("wavlm", "base", "pooled"): "8c7dbb05daf1824d56e592eeac0691c3",
    ("wavlm", "large", "cnn"): "8a91d95e1bf9da0244a9d6ea8b069eb0",
    ("wavlm", "large", "layer"): "9c9c83048d497bbb335393b637976a21",
    ("wavlm", "large", "all"): "385daa26be4c0f0b93488176fc97d307",
    ("wavlm", "large", "pooled"): "01face226589b84a3d203856ee8d12b6",
    ("hubert", "base", "cnn"): "a49369888f67835947db5c1fe3b6fb38",
    ("hubert", "base", "pooled"): "bfbc46fc6150b10a1de5243e1c747e3a",
    ("hubert", "large", "cnn"): "7f2080badc61d4bf4e3ebc77bd415063",
    ("hubert", "large", "pooled"): "65f0c4dafec551dfef1f1f2be9b80515",
    ("wav2vec2", "base", "cnn"): "b660705ac038893c4bea3d766e1619d9",
    ("wav2vec2", "base", "pooled"): "4b241e8666750c55d694fe1071ec8790",
    ("wav2vec2", "large", "cnn"): "453bf870dfb10ae24da59e0a7a13df78",
    ("wav2vec2", "large", "pooled"): "75fe34556e1dcc358e0035a031504308",
}
"""Encoder family, layout and what is frozen, as written by the first version that stored features."""


@pytest.mark.parametrize(("family", "layout", "params", "key"), [(*named, key) for named, key in KEYS.items()])
def test_a_store_filled_by_serfit_0_1_is_still_found(
    family: str, layout: str, params: str, key: str, tmp_path: Path
) -> None:
    hf = build_hf(family, layout)
    for number, tensor in enumerate(hf.state_dict().values()):  # the same on every processor
        tensor.copy_((torch.arange(tensor.numel()) % (number + 2)).view_as(tensor) / 8)
    hf.save_pretrained(tmp_path / "encoder")
    chosen: dict[str, Any] = {
        "cnn": {},
        "layer": {"freeze_layers": 1},
        "all": {"freeze_speech_encoder": True, "layers": "last"},
        "pooled": {"freeze_speech_encoder": True, "pooling": "mean"},
    }[params]
    model = build_model(ModelParams(speech_encoder=str(tmp_path / "encoder"), **chosen), dimensions=2, seed=1)
    made = build_features(model, FeatureSettings(store=tmp_path / "store"), Augmentation(), Precision(), crop=False)
    assert made.store is not None
    assert made.store.folder.name == key
