"""OpenVINO and ONNX Runtime: a case as a graph of each, with the nodes that were quickest there.

    maps            a node a level, the results side by side. OpenVINO: ROIPooling of the whole map, 2 to 12 times as
                    fast as its AdaptiveMaxPool. ONNX has none: MaxPool where the bins of a level are alike and evenly
                    spaced, else MaxRoiPool of the whole map
    regions         ROIPooling and MaxRoiPool, a node a level. The boxes are constants of the graph
    stride-1 pools  a chain of MaxPools (`Case.chain`), beside the input

Both have as many threads as torch, which sleep between calls, compute in float32, and keep their input and output: a
call allocates nothing that its caller sees. They have no channels_last of their own, so in such a case their input is
the same map, contiguous, which is what their users have. They pool in float32 and without gradients or an argmax, so
they run in no other case.

ROIPooling finds the edges of bins with integers, as spp_ext does, MaxRoiPool in float32. For the cases' boxes both find
the same edges: results are compared bit for bit, with no exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spp_ext.cli.composition import STRIDE

from .cases import ENGINES, LEVELS, Case

Pool = Callable[[Tensor], Tensor]


def _boxes(case: Case, rois: Tensor | None) -> tuple[np.ndarray, float]:
    """Boxes ``[K, 5]`` and their scale; for a whole map, one around each image."""
    if rois is not None:
        return rois.numpy(), 1 / STRIDE
    n, _, h, w = case.shape
    return np.array([[image, 0, 0, w - 1, h - 1] for image in range(n)], np.float32), 1.0


def _kernel_and_stride(cells: int, bins: int) -> tuple[int, int] | None:
    """Of the pool whose windows are the bins of one axis, if there is one."""
    edges = [(i * cells // bins, -(-(i + 1) * cells // bins)) for i in range(bins)]
    kernel, stride = edges[0][1], edges[min(1, bins - 1)][0] or 1
    alike = edges == [(i * stride, i * stride + kernel) for i in range(bins)]
    return (kernel, stride) if alike else None


def openvino(case: Case, rois: Tensor | None) -> Pool:
    """An inference request of a compiled model; its output is overwritten by the next call."""
    import openvino as ov
    from openvino import opset15 as ops
    from openvino import properties

    input = ops.parameter(case.shape, ov.Type.f32)
    if case.kernel_sizes:
        parts: list[Any] = [input]
        for size in case.chain:
            pads = [size // 2] * 2
            parts.append(ops.max_pool(parts[-1], [1, 1], [1, 1], pads, pads, [size, size], "floor").output(0))
    else:
        boxes, scale = _boxes(case, rois)
        pooled = [ops.roi_pooling(input, ops.constant(boxes), [level, level], scale, "max") for level in LEVELS]
        parts = [ops.reshape(part, ops.constant(np.array([len(boxes), -1])), False) for part in pooled]
    config = {
        properties.hint.performance_mode: properties.hint.PerformanceMode.LATENCY,
        properties.hint.inference_precision: ov.Type.f32,
        properties.inference_num_threads: torch.get_num_threads(),
        properties.num_streams: 1,
    }
    model = ov.Core().compile_model(
        ov.Model([ops.concat(parts, 1)], [input]), "CPU", {name(): value for name, value in config.items()}
    )
    request, output = model.create_infer_request(), torch.empty(case.output_shape)
    request.set_output_tensor(ov.Tensor(output.numpy(), shared_memory=True))
    bound: Tensor | None = None

    def pool(map: Tensor) -> Tensor:
        nonlocal bound
        if map is not bound:
            request.set_input_tensor(ov.Tensor(map.numpy(), shared_memory=True))
            bound = map
        request.infer(share_outputs=True)
        return output

    return pool


def onnx_runtime(case: Case, rois: Tensor | None) -> Pool:
    """A session with bound buffers; its output is overwritten by the next call."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, parts, constants = [], [], {}

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    if case.kernel_sizes:
        parts = ["input"]
        for size in case.chain:
            parts.append(node("MaxPool", parts[-1], kernel_shape=[size, size], pads=[size // 2] * 4))
    else:
        boxes, scale = _boxes(case, rois)
        constants["rows"] = np.array([len(boxes), -1])
        for level in LEVELS:
            pools = [_kernel_and_stride(cells, level) for cells in case.shape[2:]] if rois is None else [None]
            if None in pools:
                constants["boxes"] = boxes
                pooled = node("MaxRoiPool", "input", "boxes", pooled_shape=[level, level], spatial_scale=scale)
            else:
                kernel, strides = zip(*pools, strict=True)
                pooled = node("MaxPool", "input", kernel_shape=kernel, strides=strides)
            parts.append(node("Reshape", pooled, "rows"))
    nodes.append(helper.make_node("Concat", parts, ["output"], axis=1))
    graph = helper.make_graph(
        nodes,
        case.name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, case.shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, case.output_shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding, output = session.io_binding(), torch.empty(case.output_shape)
    binding.bind_output("output", "cpu", 0, np.float32, list(output.shape), output.data_ptr())
    bound: Tensor | None = None

    def pool(map: Tensor) -> Tensor:
        nonlocal bound
        if map is not bound:
            binding.bind_input("input", "cpu", 0, np.float32, list(map.shape), map.data_ptr())
            bound = map
        session.run_with_iobinding(binding)
        return output

    return pool


def engines(case: Case) -> Iterator[tuple[str, Callable[[Case, Tensor | None], Pool]]]:
    """Name and builder of the engines that can run a case, whether installed or not."""
    if case.has_fixed_buffers:
        yield from zip(ENGINES, (openvino, onnx_runtime), strict=True)
