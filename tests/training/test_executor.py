"""The gradient of an optimisation batch must not know how it was cut up."""

from contextlib import nullcontext

import pytest
import torch

from serfit.config.schema import ModelParams
from serfit.errors import UserError, is_out_of_memory
from serfit.nn.losses import ccc_loss
from serfit.nn.model import EmotionModel, build_model
from serfit.training.batches import Example
from serfit.training.executor import Executor

LENGTHS = [3000, 5200, 2100, 4100, 6000, 1800, 2600, 3300]


def loss(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ccc_loss(predictions, targets, mse_share=0.2).value


def examples(dtype: torch.dtype) -> list[Example]:
    random = torch.Generator().manual_seed(1)
    return [
        Example(str(n), torch.randn(s, generator=random, dtype=dtype), torch.rand(2, generator=random, dtype=dtype), n)
        for n, s in enumerate(LENGTHS)
    ]


def network(encoder: str, dtype: torch.dtype) -> EmotionModel:
    params = ModelParams(
        speech_encoder=encoder, freeze_cnn=False, encoder_dropout=0.2, head_dropout=0.3, attention_dropout=0.1
    )
    return build_model(params, dimensions=2, seed=3).to(dtype)


def executor(model: EmotionModel, budget: int | None) -> Executor:
    return Executor(model, 0, torch.device("cpu"), nullcontext, budget)


def gradients(
    model: EmotionModel, plan: list[list[int]], dtype: torch.dtype
) -> tuple[float, torch.Tensor, torch.Tensor]:
    model.train()
    value, predictions = executor(model, None)._gradients(examples(dtype), plan, loss)
    grads = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return value, predictions, torch.cat(grads)


PLANS = {
    "8x1": [[n] for n in range(8)],
    "4x2": [[0, 1], [2, 3], [4, 5], [6, 7]],
    "2x4": [[7, 2, 5, 0], [6, 1, 3, 4]],
    "ragged": [[0, 1, 2, 3, 4], [5], [6, 7]],
}


@pytest.mark.parametrize("encoder", ["random:tiny", "random:tiny-base"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_any_cut_gives_the_gradient_of_the_whole_batch(encoder: str, dtype: torch.dtype, tolerance: float) -> None:
    """With dropout everywhere: masks belong to utterances, not to batches."""
    model = network(encoder, dtype)
    value, predictions, whole = gradients(model, [list(range(8))], dtype)
    assert whole.abs().max() > 0
    for plan in PLANS.values():
        other_value, other_predictions, other = gradients(model, plan, dtype)
        assert other_value == pytest.approx(value, rel=tolerance)
        torch.testing.assert_close(other_predictions, predictions, rtol=0, atol=10 * tolerance)
        assert float((other - whole).norm() / whole.norm()) < tolerance


def test_the_mean_of_micro_batch_losses_has_another_gradient() -> None:
    """What this module exists to avoid."""
    model = network("random:tiny", torch.float64)
    _, _, whole = gradients(model, [list(range(8))], torch.float64)
    parts = []
    for micro in PLANS["4x2"]:
        chosen = [examples(torch.float64)[index] for index in micro]
        executor(model, None)._gradients(chosen, [[0, 1]], loss)
        parts.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert float((torch.stack(parts).mean(0) - whole).norm() / whole.norm()) > 0.1


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "Unable to find an engine to execute this computation",
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
        "NCCL error: unhandled cuda error 'out of memory'",
    ],
)
def test_memory_running_out_is_recognised_in_all_its_words(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


class Tight(torch.nn.Module):
    """A model on a machine that holds no more than so many padded entries."""

    def __init__(self, model: EmotionModel, room: int) -> None:
        super().__init__()
        self.model, self.room, self.encoder = model, room, model.encoder
        self.feature_shape, self.computed_entries = model.feature_shape, model.computed_entries

    def forward(self, inputs: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        needed = inputs.shape[0] * inputs.shape[1]
        if (needed // 2 if self.encoder.gradient_checkpointing else needed) > self.room:
            raise RuntimeError("CUDA error: out of memory")
        return self.model(inputs, *args, **kwargs)


def test_running_out_of_memory_changes_nothing_but_the_plan() -> None:
    model = network("random:tiny", torch.float64)
    value, predictions, whole = gradients(model, [list(range(8))], torch.float64)
    tight = executor(Tight(model, 13_000), None)  # type: ignore[arg-type]
    again_value, again = tight.gradients(examples(torch.float64), loss)
    assert again_value == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(again, predictions, rtol=0, atol=1e-9)
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert float((grads - whole).norm() / whole.norm()) < 1e-10
    assert tight.budget is not None
    assert tight.budget <= 13_000
    assert "ran out" in tight.take_notes()[0]
    assert tight.take_notes() == ()


def test_a_single_utterance_that_does_not_fit_is_named() -> None:
    tight = executor(Tight(network("random:tiny", torch.float32), 2500), None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"single utterance 4, even with gradient checkpointing"):
        tight.gradients(examples(torch.float32), loss)


def test_gradient_checkpointing_is_switched_on_before_a_single_utterance_is_refused() -> None:
    model = network("random:tiny", torch.float64)
    value, predictions, whole = gradients(model, [list(range(8))], torch.float64)
    tight = executor(Tight(model, 3100), None)  # type: ignore[arg-type]
    again_value, again = tight.gradients(examples(torch.float64), loss)
    assert any("gradient checkpointing" in note for note in tight.take_notes())
    assert again_value == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(again, predictions, rtol=0, atol=1e-9)
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert float((grads - whole).norm() / whole.norm()) < 1e-10


def test_predictions_do_not_depend_on_the_plan() -> None:
    model = network("random:tiny", torch.float32)
    whole = executor(model, None).predict(examples(torch.float32))
    cut = executor(model, 6000).predict(examples(torch.float32))
    torch.testing.assert_close(whole, cut, rtol=0, atol=1e-5)
