"""What the CUDA kernels of this library need: registers, spills and stack, kernel by kernel.

    python -m benchmarks.cuda_registers [--arch 75 80 86 89 90]

Every formula of the tables, and every one that training writes itself, is compiled for each compute
capability, for arrays of float32, of float64, and of float16 or bfloat16 and float32 together. No
GPU is needed. tests/test_cuda_source.py asks that nothing spills. Compiled as CuPy does, with
subnormal numbers flushed to zero.
"""

import argparse
import ctypes
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from backends import PRECISIONS, cuda_random, cuda_rows
from backends.base import Array, Kernel, TracedKernel, check_known
from backends.cuda_source import CudaSource, formula_source, translation_unit
from backends.formula import OWN, Formula, Program
from backends.numpy_backend import NumpyBackend
from backends.philox import Uniform
from mlp.data.scaling import Scaling
from mlp.formulas.activations import ACTIVATIONS, learned
from mlp.formulas.losses import LOSSES
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.layers.dense import Dense
from mlp.layers.gaussian_noise import GaussianNoise
from mlp.layers.layer import Layer
from mlp.model import Model
from mlp.network.graph import Network
from mlp.training.loop import train

FLUSHED = "-ftz=true"  # as CuPy compiles: float32's subnormal numbers are zero
ARCHITECTURES = ("75", "80", "86", "89", "90")
KINDS = ("float32", "float64", "mixed", "mixed_bfloat16")
ROWS, FEW, MANY = 7, 10, 2000  # rows of up to 32 and of more than 1024 columns


# Label, program, arrays, the shape they broadcast to.
Found = tuple[str, Program, Sequence[Array], tuple[int, ...]]


class Collector(NumpyBackend):
    """NumPy, with kernels that are noted and nothing run. It takes any precision."""

    def __init__(self) -> None:
        super().__init__(jit=False)
        self.label = ""
        self.found: list[Found] = []

    def require(self, precision: str) -> None:
        pass

    def empty(self, shape: Sequence[int], dtype: Any) -> Array:
        return np.zeros(tuple(shape), dtype)

    def product(
        self, a: Array, b: Array, out: Array, precision: str = "float32"
    ) -> Callable[[], None]:
        return lambda: None

    def total(self, x: Array, out: Array) -> Callable[[], None]:
        return lambda: None

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        return call

    def uniform(
        self,
        clock: Any,
        stream: int,
        shape: tuple[int, int],
        samples: int,
        room: Callable[[], Array],
    ) -> Any:
        return Uniform(None, stream, samples, shape), None  # drawn by the kernels, as CUDA's are

    def fuse(self, formula: Formula, into: Sequence[int] = (0,)) -> Kernel:
        return _Noted(self, formula, into)


class _Noted(TracedKernel):
    own = OWN  # as of the kernels on CUDA

    def __init__(self, collector: Collector, formula: Formula, into: Sequence[int]):
        super().__init__(collector.xp, formula, into)
        self.collector = collector

    def write(
        self, program: Program, arrays: Sequence[Array], shape: tuple[int, ...]
    ) -> Callable[..., None]:
        label = f"{self.collector.label}_{program.name}_{shape[-1]}"
        self.collector.found.append((label, program, arrays, shape))
        return lambda *scalars: None


def architectures(kind: str) -> tuple[str, ...]:
    """The compute capabilities for which a kind is compiled: bfloat16, which differs from float16
    in two conversions, for the first that multiplies it."""
    return ("80",) if kind == "mixed_bfloat16" else ARCHITECTURES


def collected(kind: str) -> list[Found]:
    """Every formula of the tables, and every one that an epoch of training writes itself."""
    check_known(kind)
    backend = Collector()
    about = PRECISIONS[kind]
    types = (about.storage, about.dtype) if about.narrow else (kind,)

    def note(
        formula: Formula,
        arrays: int,
        shape: tuple[int, ...],
        into: Sequence[int] = (0,),
        scalars: int = 0,
    ) -> None:
        kinds = (types[i % len(types)] for i in range(arrays))
        zeros = (np.zeros(shape, kind) for kind in kinds)
        backend.fuse(formula, into).bind(*zeros, scalars=scalars)

    def run(
        layers: list[Layer],
        loss: str,
        optimizer: str = "adam",
        weighted: bool = True,
        **options: Any,
    ) -> None:
        model = Model(
            Network(3, layers),
            loss,
            reduction="mean",
            shared_penalties=weighted,
            backend=backend,
            precision=kind,
            input_scaling=Scaling(np.zeros(3), np.ones(3)),
        )
        t = np.eye(layers[-1].units)[:ROWS] if layers[-1].units >= ROWS else np.zeros((ROWS, 2))
        if model.objective.targets == "counts":
            t = np.ones((ROWS, layers[-1].units))
        if model.objective.heads > 1:
            t = np.arange(ROWS * model.objective.columns).reshape(ROWS, -1) % 2
        train(
            model,
            np.zeros((ROWS, 3), np.uint8),  # scaled on the device
            t,
            sample_weight=np.ones(ROWS) if weighted else None,
            epochs=1,
            optimizer=optimizer,
            record_steps=True,
            target_loss=-1.0,
            **{"batch_size": None, **options},
        )

    for name, rule in OPTIMIZERS.items():
        backend.label, made = name, rule()
        into, constants = (0, *range(2, 2 + len(made.state))), made.constants(0.1, 1)
        note(made.update, 2 + len(made.state), (ROWS,), into, len(constants))
        run([Dense(4), Dense(5), Dense(2)], "mean_squared_error", name)
    backend.label = "around"  # what is done around an update rule
    run([Dense(2)], "mean_squared_error", weight_decay=0.1, clip_norm=1.0, average="ema")
    run([Dense(2)], "mean_squared_error", clip_value=1.0, average={"name": "swa", "start": 1})
    run([Dense(2)], "mean_squared_error", sam_radius=0.1)
    backend.label = "drawn"
    run([GaussianNoise(0.1), Dense(5, "tanh", dropout=0.5), Dense(2)], "mean_squared_error")
    run([Dense(2)], "mean_squared_error", weighted=False, mixup=0.2, batch_size=ROWS - 3)
    for name, activation in ACTIVATIONS.items():
        backend.label = name
        own = len(learned(activation, 1))
        for columns in (FEW, MANY) if "softmax" in name else (FEW,):
            note(activation.f, 1 + own, (ROWS, columns))
            note(activation.df, 3 + own, (ROWS, columns))
        run(
            [Dense(5, name), Dense(5, name, bias=False, dropout=0.5), Dense(2)],
            "mean_squared_error",
        )
    for name, loss in LOSSES.items():
        backend.label = name
        for columns in (FEW, MANY):
            unit = getattr(loss, "unit", None) or "identity"
            output = Dense(columns, unit, sources=(0, 1), l1=0.1, l2=0.1)
            for weighted in (False, True):
                run([Dense(4, "tanh"), output], name, weighted=weighted)
    return backend.found


def kernels(kind: str) -> Iterator[CudaSource]:
    """The sources of all formulas for arrays as a precision has them, "mixed" of float16 and
    float32. Those whose text is the same come once."""
    seen: set[str] = set()
    names: Counter[str] = Counter()
    for label, program, arrays, shape in collected(kind):
        text = formula_source(program, arrays, shape, "name").text
        if text not in seen:
            seen.add(text)
            names[label] += 1
            name = f"{label}_{names[label]}" if names[label] > 1 else label
            yield formula_source(program, arrays, shape, name)


def row_kernels(kind: str) -> list[str]:
    """The texts of gathers, one-hot and sums into arrays of the kind."""
    into, stored = PRECISIONS[kind].dtype, (PRECISIONS[kind].storage, "uint8")
    gathered = [name for x in stored for y in {into, stored[0]} for name in (x, y, "take")]
    return [
        cuda_random.SOURCE,
        cuda_rows.gather_source(*gathered, "int64", into, "one_hot")[1],
        cuda_rows.one_hot_source("int64", stored[0])[1],
        cuda_rows.turn_source(into, into, "int64")[1],
        cuda_rows.total_source(into, into, into, *[stored[0], into, into] * 2)[1],
        cuda_rows.scatter_source(stored[0], into, into)[1],
    ]


@cache
def unit(kind: str) -> str:
    """All kernels of a kind as one source."""
    return translation_unit(*(kernel.text for kernel in kernels(kind)), *row_kernels(kind))


@dataclass(frozen=True)
class Needs:
    """What a kernel needs, by ptxas: registers a thread, and bytes of stack and of spills."""

    kernel: str
    registers: int
    stack: int
    spills: int


def compiler() -> Callable[[str, str], tuple[bool, str]] | None:
    """A function of source and compute capability that gives success and the compiler's words:
    nvcc, or NVRTC from the wheels nvidia-cuda-nvrtc and nvidia-cuda-runtime, or None."""
    if shutil.which("nvcc"):
        return _by_nvcc
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations if found else None) or ():
        libraries = [*Path(folder).rglob("libnvrtc.so.*"), *Path(folder).rglob("nvrtc64_*.dll")]
        headers = list(Path(folder).rglob("cuda_fp16.h"))
        if libraries and headers:
            return partial(_by_nvrtc, ctypes.CDLL(str(libraries[0])), headers[0].parent)
    return None


def _by_nvcc(source: str, architecture: str) -> tuple[bool, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cu"
        path.write_text(source)
        command = ["nvcc", "-cubin", f"-arch=sm_{architecture}", "-std=c++17", FLUSHED]
        command += ["-Xptxas", "-v", "-o", f"{folder}/kernels.cubin", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def _by_nvrtc(library: Any, headers: Path, source: str, architecture: str) -> tuple[bool, str]:
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    options = [f"-arch=sm_{architecture}", "-std=c++17", FLUSHED, f"-I{headers}"]
    options += ["--ptxas-options=-v"]
    texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), texts)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return not failed, log.value.decode()


def compiled(source: str, architecture: str) -> list[Needs]:
    """The needs of each kernel of the source, compiled for a compute capability.

    Raises RuntimeError with the compiler's words where the source does not compile.
    """
    compile_ = compiler()
    if compile_ is None:
        raise RuntimeError("no CUDA compiler: nvcc is not on the path, nvidia-cuda-nvrtc not there")
    right, words = compile_(source, architecture)
    if not right:
        raise RuntimeError(f"compute capability {architecture}: {words}")
    return [
        Needs(name, int(registers), int(stack), int(stores) + int(loads))
        for name, stack, stores, loads, registers in _REPORT.findall(words)
    ]


_REPORT = re.compile(
    r"Function properties for (\S+)\s+(?:ptxas\s+\.\s+)?(\d+) bytes stack frame, "
    r"(\d+) bytes spill stores, (\d+) bytes spill loads\s+ptxas info\s+: Used (\d+) registers"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", nargs="+", default=ARCHITECTURES, help="compute capabilities")
    chosen = parser.parse_args()
    if compiler() is None:
        raise SystemExit(
            "no CUDA compiler: install the CUDA toolkit, or pip install nvidia-cuda-nvrtc "
            "nvidia-cuda-runtime"
        )
    for kind in KINDS:
        needs: dict[str, list[Any]] = {}
        for architecture in set(chosen.arch).intersection(architectures(kind)):
            for need in compiled(unit(kind), architecture):
                needs.setdefault(need.kernel, []).append(need)
        print(f"\n{kind}: registers a thread (stack, spills in bytes where there are any)")
        print(f"{'':<44}" + "".join(f"{'sm_' + a:>12}" for a in chosen.arch))
        for kernel, found in sorted(needs.items()):
            cells = [
                f"{n.registers}" + (f" ({n.stack}, {n.spills})" if n.stack or n.spills else "")
                for n in found
            ]
            print(f"{kernel:<44}" + "".join(f"{cell:>12}" for cell in cells))


if __name__ == "__main__":
    main()
