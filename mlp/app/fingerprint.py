"""What the data of a run were: enough to know them again, and to say what is different."""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mlp.app.config import FILES, Config
from mlp.data.order import BLOCK
from mlp.data.row_files import Part
from mlp.data.samples import Samples, checksum
from mlp.parallel.group import ALONE, Group

AT_ONCE = 4 * BLOCK  # rows on disk of one checksum, whatever else the file has beside them


def fingerprint(
    config: Config, samples: Mapping[str, Samples], group: Group = ALONE
) -> dict[str, Any]:
    """{"files": {key: path, size, time}, "rows": {part: how many, of which checksum}}.

    The rows are those that the network is given, so a file may move or be written anew. group:
    processes that call this together: of rows on disk each reads its share. Of those in memory rank
    0 alone has the checksum.
    """
    files = {f"data.{name}": getattr(config.data, name) for name in FILES}
    rows: dict[str, dict[str, Any]] = {name: {"rows": part.n} for name, part in samples.items()}
    for name, part in samples.items():
        if isinstance(part.X, Part):
            rows[name]["blake2b of pieces"] = _of_pieces(part.own(), group)
        elif group.rank == 0:
            rows[name]["blake2b"] = checksum(part.X, part.t, part.s)
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
        elif any(old[kind] != new[kind] for kind in old.keys() & new.keys()):
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


def _of_pieces(part: Samples, group: Group) -> str:
    """The checksum of the checksums of pieces of rows on disk."""

    def of_piece(i: int) -> str:
        at = slice(AT_ONCE * i, AT_ONCE * (i + 1))
        return checksum(*(x if x is None else x[at] for x in (part.X, part.t, part.s)))

    found = "".join(group.dealt(-(-part.n // AT_ONCE), of_piece))
    return blake2b(found.encode(), digest_size=32).hexdigest()


def _file(path: Path) -> dict[str, Any]:
    about = path.stat()
    return {"path": str(path.resolve()), "size": about.st_size, "time": about.st_mtime_ns}
