"""The machine as serfit sees it, with stand-ins for GPUs."""

import pytest
import torch

from serfit.runtime import choose_precision, machine_lines


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_takes_bf16_where_the_gpu_computes_in_it_itself(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch answers: emulation counts unless it is left out, and a Turing GPU has nothing else."""

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert choose_precision("auto", torch.device("cuda", 0))[0] == expected
    assert choose_precision("auto", torch.device("cpu"))[0] == "fp32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (2**33, 2**34))
    card = type("Card", (), {"name": "a card", "total_memory": 2**34})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert f"bf16 mixed precision: {'yes' if expected == 'bf16' else 'no'}" in machine_lines()
