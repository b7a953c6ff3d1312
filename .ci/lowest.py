"""The lowest versions that pyproject.toml declares, as pins for pip: what the core and some extras need.

python .ci/lowest.py plot sklearn test
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
wanted = [*project["dependencies"]]
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
for requirement in wanted:
    found = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement)
    if found:
        print(f"{found[1]}=={found[2]}")
    elif not requirement.startswith("array-mlp["):  # the extras are named on the command line
        sys.exit(f"{requirement!r} has no lowest version of the form name>=1.2")
