"""torch.library.opcheck of every registered op; and results without data have the shapes and strides of real ones."""

import pytest
import torch
from op_calls import calls, out_calls
from support import OUTER, gaussian, lay_out, random_rois
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import spp_ext.ops
from spp_ext._torch.op_table import NAMES, OUT_NAMES

pytestmark = [
    pytest.mark.cpu_only,  # calls the CPU's ops themselves; tests/gpu does the same on CUDA
    # torch 2.15's own opcheck reads the .grad of tensors that are no leaves.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

ops = torch.ops.spp_ext
SHAPES = [(2, 3, 5, 6), (1, 1, 5, 6), (0, 3, 5, 6), (2, 0, 5, 6), (2, 3, 1, 1)]
UNTRACED = ("test_schema", "test_autograd_registration", "test_faketensor")  # of opcheck, in a tenth of the time


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_opcheck(shape, layout, gradient):
    x = lay_out(gaussian(shape, torch.float32), layout)
    # Tracing without a gradient is a part of tracing with one, so one shape is enough.
    utilities = {} if gradient or shape == SHAPES[0] else {"test_utils": UNTRACED}
    checked = set()
    for op, arguments in calls(x, gradient):
        opcheck(op.default, arguments, **utilities)
        checked.add(op._qualified_op_name.split("::")[1])
    assert checked == set(NAMES)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_opcheck_of_ops_that_write(shape, layout):
    checked = set()
    for op, arguments, values in out_calls(lay_out(gaussian(shape, torch.float32), layout)):
        wider = values.new_zeros(*values.shape[:-1], values.shape[-1] + 3)
        for out in (torch.zeros_like(values), wider[..., 2:-1]):
            opcheck(op, arguments, {"out": out})
        checked.add(op.name().split("::")[1])
    assert checked == set(OUT_NAMES)


def test_opcheck_of_every_dtype(dtype):
    for op, arguments in calls(gaussian((2, 3, 5, 6), dtype), True):
        opcheck(op.default, arguments, test_utils=UNTRACED)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "every_second_cell"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fake_and_meta_results_are_laid_out_as_real_ones(shape, layout):
    x = lay_out(gaussian(shape, torch.float32), layout)
    rois = random_rois(4 if shape[0] else 0, max(shape[0], 1), *shape[2:])

    def work(x, rois):
        leaf = x.detach().requires_grad_()
        outputs = [
            *spp_ext.spatial_pyramid_pool(leaf, (1, 2), return_indices=True),
            *spp_ext.roi_spatial_pyramid_pool(leaf, rois, (1, 2), return_indices=True),
            spp_ext.ops.multi_kernel_max_pool2d(leaf, (3, 5)),
            spp_ext.roi_spatial_pyramid_pool([leaf, x[..., :1]], rois, (1, 2), map_indices=rois[:, 0].long()),
        ]
        return [*outputs, *(torch.autograd.grad(output.sum(), leaf)[0] for output in (*outputs[:5:2], outputs[5]))]

    real = work(x, rois)
    with FakeTensorMode() as mode:
        fake = work(mode.from_tensor(x), mode.from_tensor(rois))
    meta = work(x.to("meta"), rois.to("meta"))
    for results in (fake, meta):
        for got, expected in zip(results, real, strict=True):
            assert (got.shape, got.stride(), got.dtype) == (expected.shape, expected.stride(), expected.dtype)


@pytest.mark.parametrize("op", ["spatial_pyramid_pool", "roi_spatial_pyramid_pool"])
def test_shapes_that_do_not_fit_are_refused_without_data(op):
    x, rois = torch.zeros(2, 3, 4, device="meta"), torch.zeros(2, 4, device="meta")
    with pytest.raises(ValueError, match=rf"spp_ext.{op}: expected input of shape \[N, C, H, W\]"):
        getattr(ops, op)(x, *(([1, 1],) if op[0] == "s" else (rois, [1, 1], 1.0, OUTER, False)))
    with pytest.raises(ValueError, match="expected boxes of shape"):
        ops.roi_spatial_pyramid_pool(x[None], rois, [1, 1], 1.0, OUTER, False)


def test_maps_that_do_not_fit_are_refused_without_data():
    x, rois, first = (torch.zeros(shape, device="meta") for shape in ((2, 3, 4, 5), (1, 5), (1,)))
    for other, message in (
        (x[:, :2], r"one batch size and number of channels, got input\[0\] of shape \[2, 3, 4, 5\] and input\[1\]"),
        (x.half(), r"one dtype, got input\[0\] of torch.float32 and input\[1\] of torch.float16"),
    ):
        with pytest.raises(ValueError, match=f"spp_ext.roi_spatial_pyramid_pool: expected maps of {message}"):
            spp_ext.roi_spatial_pyramid_pool([x, other], rois, map_indices=first.long())
