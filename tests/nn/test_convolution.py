import pytest
import torch

from serfit.nn.convolution import convolution


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
