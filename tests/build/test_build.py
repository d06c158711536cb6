"""What was built, why, and that it runs where it should: one build for every torch, CUDA or not, and for C++ users."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import native_builds
import pytest
import torch

import spp_ext
from spp_ext import _core
from spp_ext._torch import library as _library

ROOT = Path(__file__).parents[2]
PACKAGE = Path(spp_ext.__file__).parent
CUDA_LIBRARY = PACKAGE / "libspp_ext_cuda.so"
CPP = ROOT / "examples" / "cpp"

sys.path.append(os.fspath(ROOT / "tools"))

MANY_REGISTERS = """
__global__ void planted(int* p, int n) {
  int local[64];
  for (int i = 0; i < 64; ++i) local[i] = p[i] * i;
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += local[(i * 7 + p[i]) & 63];
  p[0] = sum;
}
"""
FEW_REGISTERS = "__global__ void repaired(int* p) { p[threadIdx.x] *= 2; }"


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)


def test_cuda_is_built_where_there_is_a_compiler_and_the_reason_is_kept():
    decision = _core.build_info()["CUDA"]
    if CUDA_LIBRARY.exists():
        architectures = r"\d+a?(\+PTX)?( \d+a?(\+PTX)?)*"
        assert re.fullmatch(rf"built by nvcc [\d.]+ for {architectures} \(.+\)", decision)
        assert CUDA_LIBRARY.stat().st_size < 16 * 2**20
    else:
        reasons = {"not built: SPP_EXT_CUDA=0"} if shutil.which("nvcc") else {"not built: no nvcc found"}
        assert decision in reasons | {"not built: SPP_EXT_CUDA=0"}


def test_the_cuda_library_is_used_only_by_a_torch_that_has_cuda():
    expected = {
        (False, False): "not built",
        (False, True): "not built",
        (True, False): "built, not loaded: this torch has no CUDA",
        (True, True): "loaded",
    }
    status = _library.cuda_status()
    # Where the driver is missing or too old, that is said behind a comma.
    assert (
        status.partition(", of no use: expected a driver for CUDA")[0]
        == expected[CUDA_LIBRARY.exists(), torch.version.cuda is not None]
    )


def test_a_driver_that_is_too_old_is_told_by_info(monkeypatch, capsys):
    from spp_ext.cli import info

    monkeypatch.setattr(_library, "_uses_cuda", True)
    monkeypatch.setattr(_library, "_cuda_load_error", None)
    for fault, line in (
        ("", "loaded"),
        ("expected a driver, got none", "loaded, of no use: expected a driver, got none"),
    ):
        monkeypatch.setattr(torch.ops.spp_ext, "cuda_driver_fault", lambda fault=fault: fault, raising=False)
        info.run()
        assert re.search(rf"^CUDA op library +{line}$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("nvcc", "small"), [("12.6.85", False), ("12.8.61", False), ("12.9.86", False), ("13.0.88", True)]
)
def test_libraries_are_compressed_only_where_every_driver_that_runs_them_can_read_that(tmp_path, nvcc, small):
    script = tmp_path / "print_flags.cmake"
    flags = ROOT / "cmake" / "cuda_flags.cmake"
    script.write_text(f'include({flags})\nspp_ext_cuda_flags(flags {nvcc})\nmessage("${{flags}}")\n')
    done = run(Path(sys.executable).parent / "cmake", "-P", script)
    words = done.stderr.strip().split(";")
    assert done.returncode == 0 and "--fmad=false" in words
    assert ("--compress-mode=size" in words) == small
    assert not small or words[-1] == "--compress-mode=size"


def test_every_library_loads_beside_any_torch():
    for library in PACKAGE.glob("libspp_ext_*.so"):
        code = f"import torch; import spp_ext; torch.ops.load_library({os.fspath(library)!r})"
        done = run(sys.executable, "-c", code, env={**os.environ, "PYTHONPATH": os.fspath(ROOT)})
        assert done.returncode == 0, done.stderr


def test_no_library_names_the_folder_it_was_built_in():
    for library in PACKAGE.glob("*.so"):
        assert os.fspath(ROOT).encode() not in library.read_bytes(), library.name


def test_a_kernel_that_spills_fails_the_build_by_name(tmp_path):
    if shutil.which("nvcc") is None:
        assert not CUDA_LIBRARY.exists()  # nothing to check without a compiler
        return
    import cuda_report

    command = cuda_report.compile_commands()[0]
    results = []
    for name, source in (("planted", MANY_REGISTERS), ("repaired", FEW_REGISTERS)):
        file = tmp_path / f"{name}.cu"
        file.write_text(source)
        words = [word for word in command if not word.startswith("--generate-code")]
        words[words.index("-c") + 1] = file
        words[words.index("-o") + 1] = tmp_path / f"{name}.o"
        results.append(run(*words, "--generate-code=arch=compute_80,code=[sm_80]", cwd=cuda_report.BUILD))
    planted, repaired = results
    assert planted.returncode != 0
    assert re.search(r"stack frame|spilled", planted.stderr)
    assert "planted" in planted.stderr
    assert repaired.returncode == 0, repaired.stderr


def test_the_report_reads_what_the_assembler_prints():
    import cuda_report

    text = """ptxas info    : Compiling entry function '_ZN7spp_ext4cuda1kEv' for 'sm_90'
ptxas info    : Function properties for _ZN7spp_ext4cuda1kEv
    8 bytes stack frame, 16 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 8 bytes cumulative stack size, 32 bytes smem"""
    assert cuda_report.read_report(text) == [("_ZN7spp_ext4cuda1kEv", "90", 48, 8, 16, 32)]
    assert cuda_report.readable(["_ZN7spp_ext4cuda1kEv"]) == {"_ZN7spp_ext4cuda1kEv": "k"}


# ---- for C++ users ----

CUDA_CONSUMER_CMAKE = """
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES CXX)
find_package(spp_ext REQUIRED COMPONENTS cuda_kernels)
add_executable(consumer consumer.cpp)
target_link_libraries(consumer PRIVATE spp_ext::cuda_kernels)
"""
CUDA_CONSUMER = """
#include <cstdio>
#include <spp_ext/cuda/kernels.h>

int main() { std::printf("[%s]", spp_ext::cuda::driver_fault().c_str()); }
"""


def test_cpp_users_need_no_torch_and_get_no_cuda_unless_they_ask(tmp_path):
    installed = native_builds.cpp_package(tmp_path / "installed")
    native_builds.build(CPP / "kernels", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed}")
    assert native_builds.run(tmp_path / "build" / "pool").split() == ["5@1", "5@1", "5@1", "3@4", "4@5"]
    assert not [*installed.rglob("*cuda*")]
    (tmp_path / "CMakeLists.txt").write_text(CUDA_CONSUMER_CMAKE)
    with pytest.raises(AssertionError, match="spp_ext::cuda_kernels was not installed"):
        native_builds.build(tmp_path, tmp_path / "cuda", f"-DCMAKE_PREFIX_PATH={installed}")


@pytest.mark.integration
def test_cpp_users_who_ask_get_the_cuda_kernels(tmp_path):
    if shutil.which("nvcc") is None:
        assert not CUDA_LIBRARY.exists()  # nothing to check without a compiler
        return
    (tmp_path / "CMakeLists.txt").write_text(CUDA_CONSUMER_CMAKE)
    (tmp_path / "consumer.cpp").write_text(CUDA_CONSUMER)
    prefix, kernels, consumer = tmp_path / "installed", tmp_path / "kernels", tmp_path / "build"
    # One object is all that the consumer calls; the others, and the CPU's kernels, would take minutes.
    objects = "CMakeFiles/spp_ext_cuda_kernels.dir/csrc/cuda/stream.cu.o"
    for command in (
        ["cmake", "-G", "Ninja", "-S", ROOT, "-B", kernels, "-DSPP_EXT_CUDA=1"],
        ["cmake", "--build", kernels, "--target", objects],
        ["ar", "rcs", kernels / "libspp_ext_cuda_kernels.a", kernels / objects],
        ["ar", "rcs", kernels / "libspp_ext_kernels.a"],
        ["cmake", "--install", kernels, "--prefix", prefix],
    ):
        native_builds.run(*command, TORCH_CUDA_ARCH_LIST="9.0")
    native_builds.build(tmp_path, consumer, f"-DCMAKE_PREFIX_PATH={prefix}")
    fault = native_builds.run(consumer / "consumer")
    assert fault == "[]" or fault.startswith("[expected a driver for CUDA")


@pytest.mark.integration
def test_a_cpp_program_with_libtorch_calls_a_registered_op(tmp_path):
    native_builds.build(CPP / "torch", tmp_path, f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}")
    done = run(tmp_path / "call_op", PACKAGE / "libspp_ext_cpu.so")
    assert (done.returncode, done.stdout) == (0, "2 x 400, equal\n"), done.stderr
    missing = run(tmp_path / "call_op", tmp_path / "none.so")
    assert missing.returncode == 2 and "none.so" in missing.stderr
