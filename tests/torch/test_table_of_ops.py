"""The two tables of ops, in C++ and in Python, hold the same ops, and every list that follows from them is complete."""

import pytest
import torch
from support import CONVENTIONS

import spp_ext
from spp_ext import _boxes, _core
from spp_ext._torch import op_table as ops
from spp_ext._torch.kernels import kernels

pytestmark = pytest.mark.cpu_only  # no kernel runs

REGISTERED = {
    name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith(f"{ops.NAMESPACE}::")
}


def test_the_python_table_holds_the_registered_ops():
    assert sorted({*ops.NAMES, *ops.OUT_NAMES, "cpu_instruction_set", "cuda_driver_fault"}) == sorted(REGISTERED)


@pytest.mark.parametrize("name", [*ops.NAMES, *ops.OUT_NAMES])
def test_every_op_has_a_kernel_a_fake_and_derivatives(name):
    assert callable(getattr(kernels, name))
    full = f"{ops.NAMESPACE}::{name}"
    for key in ("CPU", "Autograd", "FuncTorchDynamicLayerFrontMode"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(full, key), key
    assert torch._library.simple_registry.singleton.find(full).fake_impl.kernel is not None


@pytest.mark.parametrize("op", ops.POOLINGS, ids=lambda op: op.name)
def test_what_the_table_says_of_an_op_is_what_its_schema_says(op):
    schemas = {}
    for name, results in ((op.name, 1), (op.with_argmax, 2), (op.into, 1)):
        schema = schemas[name] = ops.overload(torch.ops.spp_ext, name)._schema
        assert len(schema.returns) == results
        if name == op.into:
            continue
        kinds = [str(argument.type) for argument in schema.arguments]
        tensors = ["List[Tensor]" if op.of_maps else "Tensor", *["Tensor"] * (op.of_regions + op.of_maps)]
        assert kinds[: len(tensors)] == tensors
        assert not any("Tensor" in kind for kind in kinds[len(tensors) :])
    into, values = str(schemas[op.into]), str(schemas[op.name])
    assert into == values.replace("(", ".out(", 1).replace(") -> Tensor", ", *, Tensor(a!) out) -> Tensor(a!)")


@pytest.mark.parametrize("name", ops.OUT_NAMES)
def test_an_op_that_writes_has_what_a_graph_and_the_count_of_versions_need(name):
    for key in ("Functionalize", "ADInplaceOrView"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"{ops.NAMESPACE}::{name}", key)


@pytest.mark.parametrize("op", ops.POOLINGS, ids=lambda op: op.name)
def test_arguments_are_split_and_joined(op):
    maps, rois, map_indices = [torch.zeros(1)] * (1 + op.of_maps), torch.zeros(2), torch.zeros(3)
    rows = (rois if op.of_regions else None, map_indices if op.of_maps else None)
    back = op.split(op.join(maps, rows, (1, 2)))
    assert back == (tuple(maps), rows, (1, 2))


@pytest.mark.parametrize("op", ops.LINEAR, ids=lambda op: op.name)
def test_what_the_table_says_of_gather_and_scatter_is_what_their_schemas_say(op):
    schema = getattr(torch.ops.spp_ext, op.name).default._schema
    first, *_ = (str(argument.type) for argument in schema.arguments)
    assert first == ("List[Tensor]" if op.of_maps and op.is_gather else "Tensor")
    assert ("map_indices" in {argument.name for argument in schema.arguments}) == op.of_maps
    assert op.is_gather == (schema.arguments[-1].name == "level_bins")


def test_conventions_have_the_numbers_of_the_kernels():
    assert list(_boxes.CONVENTIONS) == _core.conventions() == CONVENTIONS
    assert list(_boxes.CONVENTIONS.values()) == list(range(_boxes.TORCHVISION))
    assert list(spp_ext.reference.CONVENTIONS) == CONVENTIONS
