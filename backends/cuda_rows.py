"""Rows gathered and scattered, labels spread out, columns added up: kernels that are no formulas.

    take     out[i, j] <- x[index[i], j], cast to out's type                              (1)
    one_hot  out[i, k] <- 1 where labels[i] = k, or labels[index[i]] = k, else 0          (2)
    total    out[j] <- Σ_i x[i, j]                                                        (3)
    scatter  out[k, j] <- Σ_{i: index[i] = k} x[i, j]                                     (4)
    turn     x_0[b, j] <- y_0[j], then b <- (b + 1) mod count, y_i[j] <- x_i[b, j], i > 0   (5)

(4) is one thread an element of out, which looks through all of index: no order but that of the
rows, no atomic sums, no memory; n · out.size comparisons, a few microseconds for thousands of each.
(1) and (2) are one thread an element of out. (3) gives each block up to 32 columns; its 256 threads
add up every so many rows each and then each other's sums, as a tree. Tall arrays are first cut into
parts, one row of sums a part, which the same kernel then adds up. The order of a sum depends on the
shape alone, so two runs agree to the bit. x is read once, and nothing is allocated when a bound
total runs. Several of (1) and (2) by one index are one kernel, and several of (3), each with blocks
of its own. (5) is one block, so that b counts on behind a barrier, when all have read it.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np

from backends.base import Native, spreads
from backends.cuda_kernel import Launch, compiled
from backends.cuda_source import C_TYPES, THREADS, power_of_two, read, translation_unit

TAKE, ONE_HOT = "take", "one_hot"  # what a gather does
ROWS_A_THREAD = 32  # that a thread of `total` adds up, before there are parts
PARTS = 256  # at most
TOTALS = 16  # sums of a kernel, at most: 72 bytes of arguments each, of 4096 that a kernel may have


def take(x: Native, index: Native, out: Native) -> None:
    """(1). x (n, ...), index (k,) int64 from 0 to n - 1 (not checked), out (k, ...)."""
    _gather([(x, out)], [TAKE])(index)


def one_hot(labels: Native, out: Native, index: Native | None = None) -> None:
    """(2). labels (n,) of whole numbers, or any number of them and index (n,) int64; out (n, c)."""
    if index is not None:
        _gather([(labels, out)], [ONE_HOT])(index)
    elif out.size:
        function = _function(one_hot_source, labels.dtype, out.dtype)
        numbers = (*out.shape, _steps(_matrix(labels))[0], *_steps(out))
        function((-(-out.size // THREADS),), (THREADS,), (labels, out, *numbers))


def gathering(pairs: Sequence[tuple[Native, Native]]) -> Callable[[Native], None]:
    """(1) for each (x, out), or (2) for class numbers, as a function of the index."""
    return _gather(pairs, [ONE_HOT if spreads(x, out) else TAKE for x, out in pairs])


def _gather(
    pairs: Sequence[tuple[Native, Native]], values: Sequence[str]
) -> Callable[[Native], None]:
    """A kernel of one thread an element of each out, as a function of its first argument, the
    index, whose place alone changes from call to call."""
    kinds: list[Any] = []
    arguments: list[Any] = [0]
    blocks = 0
    for (x, out), value in zip(pairs, values, strict=True):
        if out.size:
            kinds += x.dtype, out.dtype, value
            x, out = _matrix(x), _matrix(out)
            arguments += [x, out, *out.shape, *_steps(x), *_steps(out)]
            blocks += -(-out.size // THREADS)
    if not blocks:
        return lambda index: None
    launch = Launch(_function(gather_source, *kinds), (blocks,), THREADS, arguments)
    slots = launch.slots

    def run(index: Native) -> None:
        slots[0] = index.data.ptr
        launch()

    return run


def turn(
    found: Native,
    kept: Native,
    tables: Sequence[Native],
    places: Sequence[Native],
    counter: Native,
    count: int,
) -> Callable[[], None]:
    """(5) as a call, with kept as x_0 and found as y_0. kept, tables (count, m), found, places (1,
    m) of the same dtypes, counter (1,) int64."""
    function = _function(turn_source, kept.dtype, *(x.dtype for x in tables))
    arguments = [counter, count]
    for table, place in zip((kept, *tables), (found, *places), strict=True):
        arguments += [table, place, table.shape[1]]
    return Launch(function, (1,), THREADS, arguments)


def totals(
    pairs: Sequence[tuple[Native, Native]], empty: Callable[..., Native]
) -> Callable[[], None]:
    """(3) for each (x, out), as a call. x (n, m) or (n,), out (m,) or (1,) contiguous."""
    whole, of_parts = [], []
    for x, out in pairs:
        x = _matrix(x)
        parts = parts_of(*x.shape)
        sums = out if parts == 1 else empty((parts, x.shape[1]), _added_up_in(x, out))
        whole.append((x, sums, parts))
        if parts > 1:
            of_parts.append((sums, out, 1))
    launches = [_sums(some) for sums in (whole, of_parts) for some in at_once(sums)]
    if len(launches) == 1:
        return launches[0]

    def run() -> None:
        for launch in launches:
            launch()

    return run


def at_once(sums: Sequence[Any]) -> list[Sequence[Any]]:
    """The sums that one kernel takes, of all of them."""
    return [sums[i : i + TOTALS] for i in range(0, len(sums), TOTALS)]


def _sums(sums: Sequence[tuple[Native, Native, int]]) -> Launch:
    """(x, out, parts) of one kernel: out (parts, m)."""
    kinds: list[np.dtype] = []
    arguments: list[Any] = []
    blocks = 0
    for x, out, parts in sums:
        width = power_of_two(x.shape[1])
        strips = max(1, -(-x.shape[1] // width))
        kinds += x.dtype, out.dtype, _added_up_in(x, out)
        arguments += [x, out, *x.shape, *_steps(x), width, strips, parts]
        blocks += strips * parts
    return Launch(_function(total_source, *kinds), (blocks,), THREADS, arguments)


def _added_up_in(x: Native, out: Native) -> np.dtype:
    return np.result_type(x.dtype, out.dtype, np.float32)


def parts_of(rows: int, columns: int) -> int:
    """Into how many parts (3) cuts an array; more than one take a second kernel."""
    lines = THREADS // power_of_two(columns)
    return min(PARTS, max(1, -(-rows // (lines * ROWS_A_THREAD))))


def scatter(x: Native, index: Native, out: Native) -> Callable[[], None]:
    """(4) as a call. x (n, m), index (n,) int64, out (classes, m)."""
    if out.size == 0:
        return lambda: None
    real = np.result_type(x.dtype, out.dtype, np.float32)
    function = _function(scatter_source, x.dtype, out.dtype, real)
    numbers = (*out.shape, *_steps(x), *_steps(out), x.shape[0])
    return Launch(function, (-(-out.size // THREADS),), THREADS, [x, index, out, *numbers])


def _function(source: Callable[..., tuple[str, str]], *dtypes: np.dtype | str) -> Any:
    name, unit = _unit(source, *dtypes)
    return compiled(unit, name)


@cache
def _unit(source: Callable[..., tuple[str, str]], *dtypes: np.dtype | str) -> tuple[str, str]:
    name, text = source(*map(str, dtypes))
    return name, translation_unit(text)


def _matrix(x: Native) -> Native:
    """x with one row for each of its entries, without a copy."""
    if x.ndim == 2:
        return x
    return x[:, None] if x.ndim == 1 else x.reshape(x.shape[0], -1)


def _steps(x: Native) -> tuple[int, ...]:
    """Elements from one row to the next, and from one column to the next."""
    return tuple(stride // x.itemsize for stride in x.strides)


def gather_source(*kinds: str) -> tuple[str, str]:
    """Name and text of (1) and (2) for as many arrays as there are threes: dtype of what is read,
    of what is written, and which of the two."""

    def body(kind: str, wanted: str, value: str) -> str:
        found = read(kind, "x[index[i] * down + j * along]", wanted)
        if value == ONE_HOT:
            found = read("int32", "(x[index[i] * down] == j)", wanted)
        return f"""\
  const long long k = block * {THREADS} + threadIdx.x;
  if (k >= rows * columns) return;
  const long long i = k / columns, j = k - i * columns;
  out[i * p + j * q] = {found};
"""

    names = ("rows", "columns", "down", "along", "p", "q")
    blocks = f"(rows{{0}} * columns{{0}} + {THREADS - 1}) / {THREADS}"
    return _several("gather", kinds, "const long long* index", names, blocks, body)


def one_hot_source(kind: str, wanted: str) -> tuple[str, str]:
    """Name and text of (2) from labels of dtype ``kind`` into dtype ``wanted``."""
    given = f"const {C_TYPES[kind]}* labels"
    value = read("int32", "(labels[i * step] == j)", wanted)
    return _element_source(f"mlp_one_hot_{kind}_{wanted}", given, ("step",), wanted, value)


def turn_source(*kinds: str) -> tuple[str, str]:
    """Name and text of (5) for tables of these dtypes."""
    name, given, body = f"mlp_turn_{'_'.join(kinds)}", "", ""
    for i, kind in enumerate(kinds):
        given += f",\n    {C_TYPES[kind]}* x{i}, {C_TYPES[kind]}* y{i}, long long m{i}"
        written = f"y{i}[j] = x{i}[next * m{i} + j]" if i else "x0[b * m0 + j] = y0[j]"
        body += f"""\
  for (long long j = threadIdx.x; j < m{i}; j += {THREADS}) {written};
"""
    return (
        name,
        f"""\
extern "C" __global__ void __launch_bounds__({THREADS})
{name}(long long* counter, long long count{given}) {{
  const long long b = counter[0], next = b + 1 == count ? 0 : b + 1;
{body}  __syncthreads();
  if (threadIdx.x == 0) counter[0] = next;
}}
""",
    )


def _element_source(
    name: str, given: str, steps: tuple[str, ...], wanted: str, value: str
) -> tuple[str, str]:
    """Name and text of a kernel of one thread an element: out[i, j] <- value, with ``steps`` the
    strides of what is given."""
    strides = ", ".join(f"long long {step}" for step in (*steps, "p", "q"))
    return (
        name,
        f"""\
extern "C" __global__ void __launch_bounds__({THREADS})
{name}({given}, {C_TYPES[wanted]}* out,
    long long rows, long long columns, {strides}) {{
  const long long k = (long long)blockIdx.x * {THREADS} + threadIdx.x;
  if (k >= rows * columns) return;
  const long long i = k / columns, j = k - i * columns;
  out[i * p + j * q] = {value};
}}
""",
    )


def scatter_source(kind: str, wanted: str, real: str) -> tuple[str, str]:
    """Name and text of (4) from dtype ``kind`` into dtype ``wanted``, added up in ``real``."""
    name, T = f"mlp_scatter_{kind}_{wanted}_{real}", C_TYPES[real]
    return (
        name,
        f"""\
extern "C" __global__ void __launch_bounds__({THREADS})
{name}(const {C_TYPES[kind]}* x, const long long* index, {C_TYPES[wanted]}* out,
    long long rows, long long columns, long long down, long long along, long long p, long long q,
    long long n) {{
  const long long t = (long long)blockIdx.x * {THREADS} + threadIdx.x;
  if (t >= rows * columns) return;
  const long long k = t / columns, j = t - k * columns;
  {T} s = 0;
  for (long long i = 0; i < n; i++)
    if (index[i] == k) s += {read(kind, "x[i * down + j * along]", real)};
  out[k * p + j * q] = {read(real, "s", wanted)};
}}
""",
    )


def total_source(*kinds: str) -> tuple[str, str]:
    """Name and text of (3) for as many arrays as there are threes of dtypes: that of x, of out, and
    that in which they are added up.

    Thread (line, column) of a block adds up rows line, line + lines, ... of its part.
    """

    def body(kind: str, wanted: str, real: str) -> str:
        return f"""\
  __shared__ {C_TYPES[real]} sums[{THREADS}];
  const int w = (int)width, lines = {THREADS} / w, line = threadIdx.x / w;
  const long long part = block / strips, j = (block - part * strips) * w + threadIdx.x % w;
  {C_TYPES[real]} s = 0;
  if (j < columns)
    for (long long i = part * lines + line; i < rows; i += parts * lines)
      s += {read(kind, "x[i * down + j * along]", real)};
  sums[threadIdx.x] = s;
  __syncthreads();
  for (int d = lines / 2; d > 0; d /= 2) {{
    if (line < d) sums[threadIdx.x] += sums[threadIdx.x + d * w];
    __syncthreads();
  }}
  s = sums[threadIdx.x];
  if (line == 0 && j < columns) out[part * columns + j] = {read(real, "s", wanted)};
"""

    names = ("rows", "columns", "down", "along", "width", "strips", "parts")
    return _several("total", kinds, "", names, "strips{0} * parts{0}", body)


def _several(
    base: str,
    kinds: Sequence[str],
    shared: str,
    names: tuple[str, ...],
    blocks: str,
    body: Callable[[str, str, str], str],
) -> tuple[str, str]:
    """Name and text of a kernel over several arrays x and what each becomes, with blocks for each.

    kinds: in threes, dtype of x, of what it becomes, and a third that ``body`` knows. shared: an
    argument in common. names: numbers of each. blocks: how many, of the i-th.
    """
    threes = list(zip(kinds[::3], kinds[1::3], kinds[2::3], strict=True))
    runs = [("_".join(three), len(list(alike))) for three, alike in groupby(threes)]
    name = "_".join([f"mlp_{base}", *(f"{three}_{n}" if n > 1 else three for three, n in runs)])

    def listed(kind: str, i: int | str) -> str:
        return ", ".join(f"{kind}{name}{i}" for name in names)

    functions, given, calls = "", [shared] if shared else [], ""
    passed = f", {shared.rpartition(' ')[2]}" if shared else ""
    for kind, wanted, third in dict.fromkeys(threes):
        functions += f"""\
__device__ void {base}_{kind}_{wanted}_{third}(long long block{", " if shared else ""}{shared},
    const {C_TYPES[kind]}* x, {C_TYPES[wanted]}* out,
    {listed("long long ", "")}) {{
{body(kind, wanted, third)}}}
"""
    for i, (kind, wanted, third) in enumerate(threes):
        given.append(
            f"const {C_TYPES[kind]}* x{i}, {C_TYPES[wanted]}* y{i},\n    {listed('long long ', i)}"
        )
        calls += f"""\
  if (block < {blocks.format(i)})
    return {base}_{kind}_{wanted}_{third}(block{passed}, x{i}, y{i}, {listed("", i)});
  block -= {blocks.format(i)};
"""
    arguments = ",\n    ".join(given)
    return (
        name,
        f"""\
{functions}\
extern "C" __global__ void __launch_bounds__({THREADS})
{name}({arguments}) {{
  long long block = blockIdx.x;
{calls}}}
""",
    )
