"""Print the shell block of README.md that follows the marker `<!-- ci: NAME -->`."""

import re
import sys
from pathlib import Path


def main() -> None:
    name = sys.argv[1]
    text = Path("README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- ci: {re.escape(name)} -->\s*```(?:bash|sh|console)\n(.*?)```", text, re.S)
    if not found:
        sys.exit(f"README.md has no shell block after <!-- ci: {name} -->")
    print(found[1])


if __name__ == "__main__":
    main()
