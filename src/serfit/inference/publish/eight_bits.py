"""An ONNX file with the weights of its matrix products in eight bits; everything is computed in float32.

Only weights are rounded: a smaller file, as fast as the fp32 file. Tools that round activations too take one scale for
a whole tensor: a loud row, or one that isn't finite, then changes every other row of its batch. Here a row is computed
as in the fp32 file, and every onnxruntime that opens that file opens this one.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 127
"""Rounded weights lie within +-LARGEST, so that 0 stays 0 and the range is the same on both sides."""


def write_eight_bits(source: Path, target: Path, most_inline: int) -> None:
    """Write an ONNX file again, with the constant matrices [K, N] of its MatMul nodes in eight bits.

    Convolutions, biases, norms and the head (Gemm nodes) stay as they are.

    Args:
        source: the fp32 file.
        target: where to write; weights go into TARGET.data beside it where they are large.
        most_inline: bytes of weights up to which they stay in the file itself.
    """
    import onnx

    model = onnx.load(source)
    constants = {one.name: one for one in model.graph.initializer}
    wanted = {node.input[1] for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants}
    rounded: list[Any] = []
    for name in sorted(wanted):
        weights = onnx.numpy_helper.to_array(constants[name])
        if weights.ndim != 2 or weights.dtype != np.float32:
            continue
        whole, scales = round_columns(weights)
        model.graph.initializer.remove(constants[name])
        model.graph.initializer.append(onnx.numpy_helper.from_array(whole, f"{name}_int8"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(scales, f"{name}_scales"))
        # Not DequantizeLinear: onnxruntime 1.32 fuses it with the product, rounds activations, and does so or not by
        # the number of rows, so that values move by 1e-4 with the batch.
        whole_float = f"{name}_whole"
        rounded.append(onnx.helper.make_node("Cast", [f"{name}_int8"], [whole_float], to=onnx.TensorProto.FLOAT))
        rounded.append(onnx.helper.make_node("Mul", [whole_float, f"{name}_scales"], [name]))
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*rounded, *others])
    large = model.ByteSize() > most_inline
    onnx.save_model(model, str(target), save_as_external_data=large, location=f"{target.name}.data")


def round_columns(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights [K, N] as whole numbers [K, N] and scales [N]; their product is nearest to the weights.

    >>> whole, scales = round_columns(np.array([[1.27, 0.0], [-0.5, 0.0]], dtype=np.float32))
    >>> whole.tolist(), [f"{scale:.2f}" for scale in scales]
    ([[127, 0], [-50, 0]], ['0.01', '1.00'])
    """
    largest = np.abs(weights).max(axis=0)
    scales = np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32)
    return np.rint(weights / scales).astype(np.int8), scales
