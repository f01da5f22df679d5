"""What shapes show of a WavLM is what its configuration states."""

import pytest
import torch

from inference.public.published import old_names
from nn.small import LAYOUTS, build_hf
from serfit.inference.public.wavlm import wavlm_settings


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("conv_bias", [False, True])
def test_settings_are_read_off_the_tensors(layout: str, conv_bias: bool) -> None:
    hf = build_hf("wavlm", layout, conv_bias=conv_bias)
    for tensors in (hf.state_dict(), old_names(hf.state_dict())):
        for key, value in wavlm_settings(tensors).items():
            stated = getattr(hf.config, key)
            assert (tuple(stated) if isinstance(stated, list) else stated) == value, key


@pytest.mark.parametrize("size", ["base", "large"])
def test_the_published_sizes_are_found(size: str) -> None:
    from transformers import AutoConfig, AutoModel

    from serfit.nn.encoders.source import random_settings

    config = AutoConfig.for_model(**random_settings(f"random:{size}"))
    with torch.device("meta"):
        found = wavlm_settings(AutoModel.from_config(config).state_dict())
    assert {key: getattr(config, key) for key in found} == {
        key: getattr(AutoConfig.for_model(**found), key) for key in found
    }
