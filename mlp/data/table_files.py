"""Files of tables of every kind: which one a file is, by its first bytes and by its name.

First bytes go before the name, which can be any; text has none, and there the name decides. A kind
that is not read is answered with the command that converts it.
"""

import csv
import io
import re
import shlex
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mlp.data.array_files import array_table, arrays_in, is_idx, read_idx, read_npy, read_npz
from mlp.data.columnar_files import ARROW, PARQUET, read_arrow, read_parquet, write_arrow
from mlp.data.columns import EXACT
from mlp.data.packed import fill, packing, start_of, unpack, unpacked
from mlp.data.sparse_files import read_libsvm
from mlp.data.tables import Column, Table, known
from mlp.data.text_tables import read_text_table
from mlp.errors import InputError, check_is, check_names, check_switch, shown
from mlp.files import (
    PathLike,
    checked_path,
    open_regular,
    reading,
    unchanged,
    write_atomically,
)

TEXT = (".csv", ".tsv", ".txt", ".data", ".dat", ".tab")
LIBSVM = (".libsvm", ".svmlight", ".svm")
PACKINGS = (".gz", ".bz2", ".xz", ".zst")
WRITTEN = (".npy", ".parquet", ".feather", ".arrow", ".csv")
START = 4096  # bytes by which a kind is known

# How files begin that are not text, and the suffix of their kind.
MAGIC = {
    b"\x93NUMPY": ".npy",
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"\xff\xff\xff\xff": ".arrow",  # a stream
    b"PK\x03\x04": ".zip",
    b"\xd0\xcf\x11\xe0": ".xls",
    b"MATLAB 7.3": ".mat73",
    b"MATLAB": ".mat",
    b"\x89HDF": ".h5",
    b"SQLite format 3\x00": ".sqlite",
    b"$FL2": ".sav",
    b"<stata_dta>": ".dta",
    bytes(12) + b"\xc2\xea\x81\x60": ".sas7bdat",
    b"\x80\x04\x95": ".pkl",
    b"\x80\x05\x95": ".pkl",
}
# The same for text, which may have blanks, a mark of its encoding or comments before it.
WORDS = {
    r"\{\s*\".*\}\s*\n\s*\{": ".jsonl",
    r"\[\s*[\[{]|\{\s*[\"}]": ".json",
    r"(%[^\n]*\n\s*)*@relation\b": ".arff",
    r"<\?xml": ".xml",
    r"<(!doctype html|html|table)": ".html",
}
LIBSVM_LINE = re.compile(r"[-+\w.]+( +\d+:[-+.\deE]+){2,}(?=\s|$)", re.ASCII)

# What converts a kind that is not read, of the path {0} to the path {1}, and what it needs.
PANDAS = "import pandas; pandas.{}.to_csv({{1}}, index=False)"
ARRAYS = "numpy.savez({{1}}, **{{{{k: {} for k in f if {}}}}})"
CONVERSIONS = {
    ".xlsx": (PANDAS.format("read_excel({0})"), "pandas openpyxl"),
    ".xls": (PANDAS.format("read_excel({0})"), "pandas xlrd"),
    ".ods": (PANDAS.format("read_excel({0})"), "pandas odfpy"),
    ".json": (PANDAS.format("read_json({0})"), "pandas"),
    ".jsonl": (PANDAS.format("read_json({0}, lines=True)"), "pandas"),
    ".xml": (PANDAS.format("read_xml({0})"), "pandas lxml"),
    ".html": (PANDAS.format("read_html({0})[0]"), "pandas lxml"),
    ".sav": (PANDAS.format("read_spss({0})"), "pandas pyreadstat"),
    ".dta": (PANDAS.format("read_stata({0})"), "pandas"),
    ".sas7bdat": (PANDAS.format("read_sas({0}, encoding='latin-1')"), "pandas"),
    ".pkl": (PANDAS.format("read_pickle({0})"), "pandas, and trust, as a pickle can run code"),
    ".arff": (
        "import pandas, scipy.io.arff; t = pandas.DataFrame(scipy.io.arff.loadarff({0})[0]); "
        "t.apply(lambda c: c.str.decode('utf-8') if c.dtype == object else c)"
        ".to_csv({1}, index=False)",
        "pandas scipy",
    ),
    ".mat": (
        "import numpy, scipy.io; f = scipy.io.loadmat({0}); "
        + ARRAYS.format("f[k]", "k[0].isalpha()"),
        "scipy",
    ),
    ".mat73": (
        "import numpy, h5py; f = h5py.File({0}); " + ARRAYS.format("f[k][:].T", "k[0].isalpha()"),
        "h5py",
    ),
    ".h5": (
        "import numpy, h5py; f = h5py.File({0}); "
        + ARRAYS.format("f[k][:]", "isinstance(f[k], h5py.Dataset)"),
        "h5py",
    ),
    ".sqlite": (
        "import pandas, sqlite3; c = sqlite3.connect({0}); "
        "n, = c.execute('select name from sqlite_master').fetchone(); "
        "pandas.read_sql('select * from [' + n + ']', c).to_csv({1}, index=False)",
        "pandas",
    ),
    ".rds": ("write.csv(readRDS({0}), {1}, row.names = FALSE)", "R"),
    ".zip": ("{0}", "unzip"),
}
ALIKE = {
    **{".hdf5": ".h5", ".hdf": ".h5", ".db": ".sqlite", ".pickle": ".pkl", ".htm": ".html"},
    **{".ndjson": ".jsonl", ".xlsm": ".xlsx", ".xlsb": ".xlsx"},
}


def read_table(
    path: PathLike,
    *,
    header: bool | None = None,
    missing: Sequence[str] | None = None,
    as_text: Sequence[str] = (),
    wanted: Sequence[str] = (),
    array: str | None = None,
) -> Table:
    """The table in a file: text, Parquet, Arrow, .npy, .npz, IDX or LIBSVM, packed or not.

    header, missing, as_text : of a text file, see `mlp.data.text_tables.read_text_table`.
    wanted : names of columns that will be asked for: one that is there and cannot be read is
        refused; any other is left out, with a note in `Table.notes`.
    array : the name of the array in an .npz, default X or the only one. Arrays have columns x_0,
        x_1, ..., of images x_0_0, x_0_1, ...

    Reading is total: any file gives a table or one InputError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "X.npy"
    ...     np.save(file, np.arange(6.0).reshape(3, 2))
    ...     table = read_table(file)
    >>> table.names, table["x_1"].values.tolist()
    (('x_0', 'x_1'), [1.0, 3.0, 5.0])
    """
    path = checked_path(path)
    if header is not None:
        check_switch("header", header)
    wanted, as_text = check_names("wanted", wanted), check_names("as_text", as_text)
    missing = None if missing is None else check_names("missing", missing)
    with reading(path), open_regular(path) as file, unchanged(file.fileno(), str(path)):
        try:
            return _read(path, file, wanted, array, header=header, missing=missing, as_text=as_text)
        except MemoryError as error:
            raise InputError(
                f"{path} does not fit into memory{f' ({error})' if str(error) else ''}; use less "
                "data, or write it as .npy or .parquet, whose rows can stay on disk (data.memory, "
                "mlp.open_rows)"
            ) from error


def _read(
    path: Path, file: BinaryIO, wanted: Sequence[str], array: str | None, **of_text: Any
) -> Table:
    source = str(path)
    start = _unpacked_start(file, source)
    kind = kind_of(start, _suffix(path))
    if array is not None and kind not in (".npz", ".zip"):
        raise InputError(f"{source}: `array` names an array in an .npz file, which this is not")
    if kind == ".idx":
        return array_table(read_idx(file, source), source, wanted)
    if packing(start_of(file)) and (kind == ".zip" or kind not in CONVERSIONS):
        file = io.BytesIO(unpack(file, source))
    if kind == ".zip":
        kind = _kind_of_zip(file)
    if kind in CONVERSIONS:
        raise InputError(f"{source} is of the kind {kind}, which is not read; {cure(path, kind)}")
    if kind == ".npy":
        return array_table(read_npy(file, source), source, wanted)
    if kind == ".npz":
        return array_table(_chosen(file, source, array), source, wanted)
    if kind in PARQUET:
        return read_parquet(file, source, wanted)
    if kind in ARROW:
        return read_arrow(file, source, wanted)
    if kind in LIBSVM:
        return read_libsvm(file.read(), source, wanted)
    if kind in TEXT:
        return read_text_table(path, file.read(), wanted=wanted, **of_text)
    raise InputError(
        f"{source} is no table that is read: it starts with the bytes '{start[:4].hex(' ')}'; "
        "text, .parquet, .feather, .npy, .npz, IDX and .libsvm are"
    )


def _unpacked_start(file: BinaryIO, source: str) -> bytes:
    """The first bytes of a file, or of what is packed in it; as many as are not damaged."""
    file.seek(0)
    content = bytearray()
    fill(content, unpacked(file, source), START)
    file.seek(0)
    return bytes(content)


def _suffix(path: Path) -> str:
    """The suffix of what may be packed, in small letters."""
    suffix = path.suffix.lower()
    return path.with_suffix("").suffix.lower() if suffix in PACKINGS else suffix


def kind_of(start: bytes, suffix: str) -> str:
    """The kind of a file that starts with these bytes and has this suffix: the suffix of its kind,
    .idx, or "" where it is none.

    >>> kind_of(b"PAR1...", ".csv"), kind_of(b"a,b\\n1,2\\n", ""), kind_of(b'[{"a": 1}]', ".txt")
    ('.parquet', '.csv', '.json')
    """
    if is_idx(start):
        return ".idx"
    for magic, kind in MAGIC.items():
        if start.startswith(magic):
            return ".npz" if suffix == ".npz" else kind
    text = start.decode("latin-1").removeprefix("ï»¿").lstrip()
    for words, kind in WORDS.items():
        if re.match(words, text, re.IGNORECASE):
            return kind
    suffix = ALIKE.get(suffix, suffix)
    if suffix in (".npy", ".npz", *PARQUET, *ARROW, *LIBSVM, *CONVERSIONS):
        return suffix
    if suffix in TEXT and not LIBSVM_LINE.match(text):
        return suffix
    if LIBSVM_LINE.match(text):
        return ".libsvm"
    binary = b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff"))  # UTF-16
    return "" if binary else ".csv"


def _kind_of_zip(file: BinaryIO) -> str:
    """What a zip file is by the names in it."""
    try:
        names = zipfile.ZipFile(file).namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        return ".zip"
    for kind, sign in {".npz": r".*\.npy", ".xlsx": "xl/.*", ".ods": r"content\.xml"}.items():
        if any(re.fullmatch(sign, name) for name in names):
            return kind
    return ".zip"


def _chosen(file: BinaryIO, source: str, array: str | None) -> np.ndarray:
    """The array of this name in an .npz; without a name X, or the only one."""
    names = arrays_in(file, source)
    name = array or (names[0] if len(names) == 1 else "X")
    if array is None and name not in names:
        raise InputError(f"{source} holds {len(names)} arrays: name one{known('', names)}")
    if name not in names:
        raise InputError(f"{source} has no array {shown(name)}{known(name, names)}")
    return read_npz(file, source, name)


def cure(path: Path, kind: str) -> str:
    """The command that converts a file of a kind that is not read, and what it needs.

    >>> print(cure(Path("t.dta"), ".dta"))
    convert it by python -c "import pandas; \
pandas.read_stata('t.dta').to_csv('t.csv', index=False)" (with pandas)
    """
    code, needs = CONVERSIONS[kind]
    if kind == ".zip":
        return f"unpack it by unzip {shlex.quote(str(path))}"
    new = path.with_suffix(".npz" if "savez" in code else ".csv")
    if new.exists():
        new = path.with_name(path.name + new.suffix)
    program = "Rscript -e" if kind == ".rds" else "python -c"
    code = code.format(*(repr(place.as_posix()) for place in (path, new)))
    quoted = shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'
    return f"convert it by {program} {quoted} (with {needs})"


# ------------------------------------------------------------------------------ writing


def write_table(table: Table, path: PathLike) -> None:
    """The table as a .parquet, .feather, .arrow, .csv or .npy file.

    Reading gives back the same values; a .csv is read for this before it is kept. An .npy holds
    numbers alone, and no names. Raises InputError for a column that the file could not give back.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "X.csv"
    ...     write_table(Table.of_array(np.array([[0.1, -0.0]]), ["a", "b"]), file)
    ...     file.read_text(encoding="utf-8")
    'a,b\\n0.1,-0.0\\n'
    """
    check_is("write_table: table", table, Table)
    path = checked_path(path)
    kind, content = check_written(path), io.BytesIO()
    if not table.columns:
        raise InputError(f"{path}: {table.source} has no columns; it needs some to be written")
    if kind == ".npy":
        np.save(content, _one_array(table, path), allow_pickle=False)
    elif kind == ".csv":
        content.write(_csv(table, path))
    else:
        write_arrow(table, content, as_parquet=kind == ".parquet")
    write_atomically(path, content.getvalue())


def check_written(path: Path) -> str:
    """The suffix of the file. InputError if `write_table` writes no such kind."""
    if path.suffix.lower() not in WRITTEN:
        raise InputError(f"{path}: a table is written as {', '.join(WRITTEN)}; name it so")
    return path.suffix.lower()


def _one_array(table: Table, path: Path) -> np.ndarray:
    """All columns as one array (n, d) of the dtype that holds them all."""
    if table.array is not None:
        return table.array
    columns = table.columns.values()
    dtype = np.result_type(*(column.values.dtype for column in columns if column.numeric), bool)
    for column in columns:
        values = column.values
        whole = values.dtype.kind in "iu" and dtype.kind == "f" and len(values)
        if whole and (values.max() > EXACT or values.min() < -EXACT):
            raise InputError(
                f"{path}: column {shown(column.name)} has whole numbers beyond 2^53, which {dtype} "
                "would round; write .parquet"
            )
        alike = values.dtype == dtype and column.gaps is None  # all columns are True or False
        if not (column.numeric or alike):
            raise InputError(
                f"{path}: column {shown(column.name)} has no numbers, and .npy holds nothing else; "
                "write .parquet"
            )
    return np.stack([column.values.astype(dtype) for column in columns], axis=1)


def _csv(table: Table, path: Path) -> bytes:
    """The table as CSV, every value so that it is read as what it is; NA is a gap."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.names)
    writer.writerows(zip(*map(_texts, table.columns.values()), strict=True))
    try:
        content = text.getvalue().encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: some text is not Unicode ({error}); correct it") from error
    again = read_text_table(path, content)
    for name, column in table.columns.items():
        if name not in again.columns or not _same(column, again[name]):
            raise InputError(
                f"{path}: column {shown(name)} would not be read from .csv as what it is; write "
                ".parquet"
            )
    return content


def _texts(column: Column) -> list[str]:
    kind = column.values.dtype.kind
    if kind == "M":
        texts = np.datetime_as_string(column.values).tolist()
    elif kind == "f":
        texts = [repr(float(value)) for value in column.values]
    else:
        texts = [str(value) for value in column.values.tolist()]
    if column.gaps is not None:
        for k in np.flatnonzero(column.gaps):
            texts[k] = "NA"
    return texts


def _same(one: Column, other: Column) -> bool:
    """Whether two columns have the same gaps and values, of whatever width their numbers are."""
    if len(one) != len(other):
        return False
    there, other_there = (
        np.full(len(c), True) if c.gaps is None else ~c.gaps for c in (one, other)
    )
    if not np.array_equal(there, other_there) or not there.any():
        return not (there.any() or other_there.any())
    a, b = one.values[there], other.values[there]
    if one.numeric and other.numeric:
        signs = np.array_equal(np.signbit(a.astype(float)), np.signbit(b.astype(float)))
        return bool(signs) and a.tolist() == b.tolist()
    return a.dtype.kind == b.dtype.kind and a.tolist() == b.tolist()
