"""Tensors on two devices are refused by every op, be one of them without data: nothing is pooled from nowhere."""

import pytest
import torch
from support import OUTER, assert_refuses
from torch._subclasses.fake_tensor import FakeTensorMode

import spp_ext
import spp_ext.ops
from spp_ext._torch.op_table import NAMES

X = torch.randn(2, 3, 4, 5)
ROIS, FIRST = torch.zeros(1, 5), torch.zeros(1, dtype=torch.int64)
ARGMAX, GRAD = torch.zeros(1, 3, dtype=torch.int32), torch.zeros(1, 3)
LEVELS, REST = [1, 1], (OUTER, False)

# Arguments of every op that takes more than one tensor.
CALLS = {
    "roi_spatial_pyramid_pool": (X, ROIS, LEVELS, 1.0, *REST),
    "roi_spatial_pyramid_pool_of_maps": ([X, X], ROIS, FIRST, LEVELS, [1.0, 1.0], *REST),
    "gather": (X, ARGMAX, ROIS, [1]),
    "gather_of_maps": ([X, X], ARGMAX, ROIS, FIRST, [1]),
    "scatter": (GRAD, ARGMAX, ROIS, [1], [2, 3, 4, 5], False),
    "scatter_of_maps": (GRAD, ARGMAX, ROIS, FIRST, [1], [2, 3, 4, 5], [False]),
}
CALLS |= {f"{name}_with_argmax": CALLS[name] for name in list(CALLS) if name.startswith("roi")}
ONE_TENSOR = {"spatial_pyramid_pool", "multi_kernel_max_pool2d"}


def moved(arguments, move):
    """The arguments with one tensor moved, for each tensor among them."""
    for i, argument in enumerate(arguments):
        if isinstance(argument, torch.Tensor):
            yield (*arguments[:i], move(argument), *arguments[i + 1 :])
        elif isinstance(argument, list) and isinstance(argument[0], torch.Tensor):
            for j, tensor in enumerate(argument):
                yield (*arguments[:i], [*argument[:j], move(tensor), *argument[j + 1 :]], *arguments[i + 1 :])


def test_every_op_of_several_tensors_is_tested():
    assert {*CALLS, *ONE_TENSOR, *(f"{name}_with_argmax" for name in ONE_TENSOR)} == set(NAMES)


@pytest.mark.parametrize("name", CALLS)
def test_a_tensor_without_data_among_others_is_refused(name):
    for arguments in moved(CALLS[name], lambda tensor: tensor.to("meta")):
        with pytest.raises(
            ValueError, match=r"^spp_ext\.\w+: expected [\w\[\]]+ and [\w\[\]]+ on one device, got two$"
        ):
            getattr(torch.ops.spp_ext, name)(*arguments)


@pytest.mark.parametrize("name", CALLS)
def test_fake_tensors_on_two_devices_are_refused(name):
    """Of two accelerators that have the same number, too."""
    for there, here in (("cpu", "cuda"), ("xpu:0", "cuda:0"), ("cuda:1", "cuda:0")):
        with FakeTensorMode(allow_non_fake_inputs=True):
            on = {
                device: lambda tensor, device=device: torch.empty_like(tensor, device=device)
                for device in (there, here)
            }
            all_here = torch.utils._pytree.tree_map_only(torch.Tensor, on[here], CALLS[name])
            for arguments in moved(all_here, on[there]):
                with pytest.raises(ValueError, match="on one device, got two"):
                    getattr(torch.ops.spp_ext, name)(*arguments)


@pytest.mark.parametrize("name", CALLS)
def test_the_kernels_check_devices_themselves(name):
    """Past the dispatcher, which would never choose the CPU's kernel for such arguments; in the words of the fakes."""
    op, cpu = getattr(torch.ops.spp_ext, name).default, torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    for arguments in moved(CALLS[name], lambda tensor: tensor.to("meta")):
        with pytest.raises((ValueError, RuntimeError), match=r"on one device, got two") as by_kernel:
            op.redispatch(cpu, *arguments)
        with pytest.raises(ValueError, match=r"on one device, got two") as by_fake:
            op(*arguments)
        assert str(by_kernel.value).splitlines()[0] == str(by_fake.value)


META, FOUR = "meta", ROIS[:, 1:]


@pytest.mark.parametrize(
    ("call", "name", "tensors"),
    [
        (lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS.to(META)), "roi_spatial_pyramid_pool", "input and boxes"),
        (lambda: spp_ext.roi_spatial_pyramid_pool(X.to(META), ROIS), "roi_spatial_pyramid_pool", "input and boxes"),
        (
            lambda: spp_ext.roi_spatial_pyramid_pool([X, X.to(META)], ROIS, map_indices=FIRST),
            "roi_spatial_pyramid_pool",
            "input[1] and input[0]",
        ),
        (
            lambda: spp_ext.roi_spatial_pyramid_pool([X, X], ROIS, map_indices=FIRST.to(META)),
            "roi_spatial_pyramid_pool",
            "map_indices and boxes",
        ),
        (
            lambda: spp_ext.roi_spatial_pyramid_pool(X, [FOUR, FOUR.to(META)]),
            "roi_spatial_pyramid_pool",
            "input and boxes",
        ),
        (
            lambda: spp_ext.roi_spatial_pyramid_pool([X, X], [FOUR, FOUR], map_indices=[FIRST, FIRST.to(META)]),
            "roi_spatial_pyramid_pool",
            "map_indices and boxes",
        ),
        (lambda: spp_ext.ops.roi_pool(X, ROIS.to(META), 2), "ops.roi_pool", "input and boxes"),
        (lambda: spp_ext.ops.roi_pool(X, [FOUR.to(META), FOUR], 2), "ops.roi_pool", "input and boxes"),
        (lambda: spp_ext.ops.RoIPool(2, 1.0)(X.to(META), ROIS), "ops.roi_pool", "input and boxes"),
    ],
)
def test_public_functions_refuse_two_devices(call, name, tensors):
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            assert_refuses(ValueError, f"spp_ext.{name}: expected {tensors} on one device, got two", call)
    leaf = X.clone().requires_grad_()
    message = "spp_ext.roi_spatial_pyramid_pool: expected input and boxes on one device, got two"
    assert_refuses(ValueError, message, lambda: spp_ext.roi_spatial_pyramid_pool(leaf, ROIS.to(META)))
