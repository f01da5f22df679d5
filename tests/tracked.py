"""What a GPU would allocate, counted on the CPU: the GPU's branches of the code, and every tensor's memory."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten

BLOCK = 512
"""torch's allocator on GPUs hands out multiples of so many bytes."""


COSTLY = (aten.mm, aten.addmm, aten.bmm, aten.convolution, aten.convolution_backward)
"""Operations whose values don't matter here."""


class Fused(torch.autograd.Function):
    """Attention that keeps and returns what the fused kernel on CUDA does."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        batch, heads, frames, width = query.shape
        out = torch.empty(batch, frames, heads, width, dtype=query.dtype).transpose(1, 2)
        ctx.save_for_backward(query, key, value, mask, out, torch.empty(batch, heads, -(-frames // 32) * 32))
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, mask, *_ = ctx.saved_tensors
        by_parts = (torch.zeros_like(part) for part in (query, key, value))
        if mask is None or not mask.is_floating_point():
            return *by_parts, None
        rows = torch.zeros(*mask.shape[:-1], -(-mask.shape[-1] // 16) * 16, dtype=mask.dtype)
        return *by_parts, rows[..., : mask.shape[-1]]


class Dropped(torch.autograd.Function):
    """Dropout that keeps nothing, as the kernel on CUDA."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        return slope * 1.0


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the encoder take the branches that it takes on CUDA."""
    monkeypatch.setattr("serfit.nn.encoders.attention.mask_row_step", lambda device: 16)
    monkeypatch.setattr("serfit.nn.encoders.attention.has_mask_gradient", lambda device: True)
    monkeypatch.setattr("serfit.nn.encoders.attention.fused_attention", Fused.apply)
    monkeypatch.setattr("serfit.nn.dropout.dropped", lambda x, *rest: Dropped.apply(x))


def shaped(function: Any, arguments: Any, named: Any) -> Any:
    """What an operation returns, with the right shape and no value."""
    away = tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, (arguments, named))
    made = function(*away[0], **away[1])
    return tree_map(
        lambda x: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype) if isinstance(x, Tensor) else x, made
    )


class Allocations(TorchDispatchMode):
    """Counts the memory of the tensors that operations return while it is entered; products aren't computed.

    Attributes:
        now: bytes in tensors that are still alive.
        peak: most that there have been at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        skipped = function.overloadpacket in COSTLY
        found = shaped(function, arguments, named or {}) if skipped else function(*arguments, **(named or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return found

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's memory, once, until it is freed."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.known:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self.known.add(storage._cdata)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, storage._cdata, size)

    def _freed(self, name: int, size: int) -> None:
        self.known.discard(name)
        self.now -= size
