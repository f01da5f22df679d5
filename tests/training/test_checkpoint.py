from pathlib import Path

import pytest
import torch

from serfit.config.schema import ModelParams, Optimizer
from serfit.errors import UserError
from serfit.nn.model import EmotionModel, build_model
from serfit.nn.saved import frozen_digest, load_weights, save_weights
from serfit.training.checkpoint import (
    KEPT_CHECKPOINTS,
    latest_checkpoint,
    model_and_optimizer,
    restore_model_and_optimizer,
    save_checkpoint,
)
from serfit.training.optim import build_optimizer


def network(seed: int = 1, **params: object) -> EmotionModel:
    return build_model(ModelParams(speech_encoder="random:tiny", **params), dimensions=2, seed=seed)


def trained(model: EmotionModel, steps: int = 2) -> torch.optim.Optimizer:
    optimizer = build_optimizer(model, Optimizer(lr=1e-3, encoder_lr=1e-3))
    for step in range(steps):
        inputs = torch.randn(2, 4000, generator=torch.Generator().manual_seed(step))
        model.zero_grad()
        model(inputs, torch.tensor([4000, 3000]), start=0).square().sum().backward()
        optimizer.step()
    return optimizer


def test_weights_come_back_onto_the_same_encoder_only(tmp_path: Path) -> None:
    model = network()
    trained(model)
    save_weights(tmp_path / "best.safetensors", model, frozen_digest(model))
    fresh = network()
    load_weights(tmp_path / "best.safetensors", fresh, frozen_digest(fresh))
    for (name, left), right in zip(model.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(left, right), name
    for other in (network(seed=2), network(freeze_cnn=False), network(layers="last")):
        with pytest.raises(UserError, match="belong to another encoder or configuration"):
            load_weights(tmp_path / "best.safetensors", other, frozen_digest(other))
    (tmp_path / "best.safetensors").write_bytes(b"PK not safetensors")
    with pytest.raises(UserError, match="can't read"):
        load_weights(tmp_path / "best.safetensors", fresh, frozen_digest(fresh))


def test_trained_weights_that_are_not_finite_are_named_when_they_are_loaded(tmp_path: Path) -> None:
    model = network()
    next(model.head.parameters()).data.view(-1)[3] = float("inf")
    save_weights(tmp_path / "best.safetensors", model, frozen_digest(model))
    with pytest.raises(UserError, match=r"weights of .*best\.safetensors aren't finite: 1 of \d+ values of head\."):
        load_weights(tmp_path / "best.safetensors", network(), frozen_digest(model))


def test_a_restored_optimiser_takes_the_same_next_step(tmp_path: Path) -> None:
    model = network()
    optimizer = trained(model)
    save_checkpoint(tmp_path / "checkpoints", 2, model_and_optimizer(model, optimizer), {"step": 2, "best": [0.25, 1]})
    fresh = network()
    again = build_optimizer(fresh, Optimizer(lr=1e-3, encoder_lr=1e-3))
    found = latest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    tensors, state, notes = found
    assert (state, notes) == ({"step": 2, "best": [0.25, 1]}, [])
    restore_model_and_optimizer(tensors, fresh, again)
    for network_, optimizer_ in ((model, optimizer), (fresh, again)):
        network_.zero_grad()
        network_(torch.ones(1, 4000), torch.tensor([4000]), start=0).sum().backward()
        optimizer_.step()
    for (name, left), right in zip(model.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"x": torch.full((100,), float(step))}, {"step": step})
    newest = tmp_path / "step-00000002.safetensors"
    whole = bytearray(newest.read_bytes())
    whole[-100] ^= 1
    newest.write_bytes(
        {"cut": bytes(whole[:200]), "flip": bytes(whole), "empty": b"", "foreign": b"\x80\x04pickle"}[damage]
    )
    found = latest_checkpoint(tmp_path)
    assert found is not None
    tensors, state, notes = found
    assert state == {"step": 1}
    assert tensors["x"][0] == 1
    assert notes == ["the checkpoint step-00000002.safetensors is torn, altered or foreign and was passed over"]


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "nothing") is None
    for step in range(5):
        save_checkpoint(tmp_path, step, {"x": torch.zeros(1)}, {})
    assert len(list(tmp_path.iterdir())) == KEPT_CHECKPOINTS
