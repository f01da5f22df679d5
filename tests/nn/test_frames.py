import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serfit.nn.frames import Layout, frame_count, shortest_input, valid_mask

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
geometries = st.lists(st.tuples(st.integers(1, 10), st.integers(1, 5)), min_size=1, max_size=5)


@given(st.integers(0, 500_000))
def test_wavlm_frames_follow_the_closed_form(samples: int) -> None:
    expected = (samples - 400) // 320 + 1 if samples >= 400 else 0
    assert frame_count(samples, KERNELS, STRIDES) == expected
    assert frame_count(torch.tensor([samples]), KERNELS, STRIDES).tolist() == [expected]


@given(geometries, st.integers(0, 300))
def test_frames_are_those_of_torch_convolutions(geometry: list[tuple[int, int]], extra: int) -> None:
    kernels, strides = zip(*geometry, strict=True)
    samples = shortest_input(kernels, strides) + extra
    hidden = torch.zeros(1, 1, samples)
    for kernel, stride in geometry:
        hidden = torch.nn.functional.conv1d(hidden, torch.zeros(1, 1, kernel), stride=stride)
    assert frame_count(samples, kernels, strides) == hidden.shape[-1]


@given(geometries)
def test_the_shortest_input_gives_one_frame_and_one_sample_less_gives_none(geometry: list[tuple[int, int]]) -> None:
    kernels, strides = zip(*geometry, strict=True)
    shortest = shortest_input(kernels, strides)
    assert frame_count(shortest, kernels, strides) == 1
    assert frame_count(shortest - 1, kernels, strides) == 0


def test_valid_mask_counts() -> None:
    assert valid_mask(torch.tensor([0, 2, 3]), 3).int().tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_layout_has_a_mask_only_where_something_is_padded() -> None:
    device = torch.device("cpu")
    assert Layout.of((3, 3), 3, device).valid is None
    padded = Layout.of((3, 1), 3, device)
    assert padded.valid is not None
    assert padded.valid.sum().item() == 4
    for counts in ((0, 3), (4, 3)):
        with pytest.raises(AssertionError):
            Layout.of(counts, 3, device)
