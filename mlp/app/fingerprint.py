"""What the data of a run were: enough to know them again, and to say what is different."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlp.app.config import FILES, Config
from mlp.data.samples import Samples, checksum


def fingerprint(config: Config, samples: Mapping[str, Samples]) -> dict[str, Any]:
    """{"files": {key: path, size, time}, "rows": {part: how many, of which checksum}}.

    The rows are those that the network is given, so a file may move or be written anew.
    """
    files = {f"data.{name}": getattr(config.data, name) for name in FILES}
    rows = {
        name: {"rows": part.n, "blake2b": checksum(part.X, part.t, part.s)}
        for name, part in samples.items()
    }
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
