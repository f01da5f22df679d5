import pytest
import torch

from serfit.nn.encoders.convolution import convolution, grouped_convolution


@pytest.mark.parametrize(("kernel", "stride"), [(10, 5), (3, 2), (2, 2), (5, 2), (4, 4), (7, 3), (1, 1)])
@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_that_of_torch_and_so_is_its_gradient(kernel: int, stride: int, channels: int, bias: bool) -> None:
    conv = torch.nn.Conv1d(channels, 7, kernel, stride, bias=bias).double()
    for frames in range(kernel, kernel + 3 * stride + 1):
        x = torch.randn(3, frames, channels, dtype=torch.float64, requires_grad=True)
        mine, theirs = convolution(conv, x), conv(x.transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        slope = torch.randn_like(mine)
        inputs = (x, *conv.parameters())
        for a, b in zip(
            torch.autograd.grad(mine, inputs, slope), torch.autograd.grad(theirs, inputs, slope), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", [{"padding": 1}, {"dilation": 2}, {"groups": 2}])
def test_what_it_does_not_compute_is_refused(how: dict[str, int]) -> None:
    with pytest.raises(AssertionError, match="no "):
        convolution(torch.nn.Conv1d(4, 4, 3, **how), torch.zeros(1, 9, 4))


@pytest.mark.parametrize("width", [1, 2, 4, 8, 12, 16, 24, 48, 64])
def test_groups_of_any_width_are_right_in_16_bits(width: int) -> None:
    """A kernel for AMX isn't: with 4 to 12 channels in a group, its error is as large as the value."""
    torch.manual_seed(1)
    module = torch.nn.Module()
    module.conv = torch.nn.Conv1d(4 * width, 4 * width, 17, padding=8, groups=4)
    module.forward = lambda x: module.conv(x.transpose(1, 2)).transpose(1, 2)  # type: ignore[method-assign]
    x = torch.randn(2, 50, 4 * width, requires_grad=True)
    inputs = (x, *module.parameters())
    exact = grouped_convolution(module, x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = grouped_convolution(module, x).float()
    pairs = zip(
        (mixed, *torch.autograd.grad(mixed.square().sum(), inputs)),
        (exact, *torch.autograd.grad(exact.square().sum(), inputs)),
        strict=True,
    )
    assert max(float((a - b).norm() / b.norm()) for a, b in pairs) < 0.02
