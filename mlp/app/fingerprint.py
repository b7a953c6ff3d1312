"""What the data of a run were: enough to know them again, and to say what is different."""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from mlp.app.config import FILES, Config
from mlp.data.row_files import Part
from mlp.data.samples import Samples, is_sparse


def fingerprint(config: Config, samples: Mapping[str, Samples]) -> dict[str, Any]:
    """{"files": {key: path, size, time}, "rows": {part: how many, of which checksum}}.

    The rows are those that the network is given, so a file may move or be written anew.
    """
    files = {f"data.{name}": getattr(config.data, name) for name in FILES}
    rows = {name: {"rows": part.n, "blake2b": _checksum(part)} for name, part in samples.items()}
    return {"files": {key: _file(Path(x)) for key, x in files.items() if x}, "rows": rows}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is different about the rows of two fingerprints, and about the files they are of; empty
    if the rows are the same."""
    parts = sorted({*then["rows"], *now["rows"]})
    none = {"rows": 0, "blake2b": ""}
    found = []
    for part in parts:
        old, new = (x["rows"].get(part, none) for x in (then, now))
        if old["rows"] != new["rows"]:
            found.append(f"{old['rows']} {part} rows then, {new['rows']} now")
        elif old != new:
            found.append(f"the {part} rows have other values")
    if not found:
        return []
    for key, new in now["files"].items():
        old = then["files"].get(key)
        if old is not None and old["path"] != new["path"]:
            found.append(f"{key} was {old['path']}, is {new['path']}")
        elif old is not None and old != new:
            sizes = f"{old['size']} bytes then, {new['size']} now"
            found.append(f"{key} = {new['path']} was changed since ({sizes})")
    return found


def _file(path: Path) -> dict[str, Any]:
    about = path.stat()
    return {"path": str(path.resolve()), "size": about.st_size, "time": about.st_mtime_ns}


def _checksum(samples: Samples) -> str:
    """Of the inputs, targets and weights: dtypes, shapes and values."""
    digest = blake2b(digest_size=32)
    for x in (samples.X, samples.t, samples.s):
        if x is None:
            continue
        x = x.tocsr() if is_sparse(x) else x
        arrays = (x.data, x.indices, x.indptr) if is_sparse(x) else (x,)
        digest.update(f"{x.shape} {x.dtype} ".encode())
        for array in arrays:
            for piece in array.pieces() if isinstance(array, Part) else _pieces(np.asarray(array)):
                digest.update(np.ascontiguousarray(piece).data)
    return digest.hexdigest()


def _pieces(x: np.ndarray) -> list[np.ndarray]:
    """Some rows at a time, so that a copy of what does not lie in one piece is small."""
    rows = max(1, (1 << 24) // max(1, x[:1].nbytes))
    return [x[start : start + rows] for start in range(0, len(x), rows)]
