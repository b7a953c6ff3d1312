"""The lowest versions that pyproject.toml declares, as pins for pip: of the core and some extras.

python .ci/lowest.py plot sklearn test
"""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main() -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lowest: dict[str, tuple[int, ...]] = {}
    for requirement in sum((extras[name] for name in sys.argv[1:]), project["dependencies"]):
        if requirement.startswith("array-mlp["):
            continue  # further extras of ours: name them on the command line
        found = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement)
        if not found:
            sys.exit(f"{requirement!r} is not of the form name>=1.2: which is its lowest version?")
        version = tuple(map(int, found[2].split(".")))
        lowest[found[1]] = max(version, lowest.get(found[1], version))
    for name, version in lowest.items():
        print(f"{name}=={'.'.join(map(str, version))}")


if __name__ == "__main__":
    main()
