"""Print the shell block of README.md that follows the marker `<!-- ci: NAME -->`."""

import re
import sys
from pathlib import Path


def main() -> None:
    name = sys.argv[1]
    text = Path("README.md").read_text(encoding="utf-8")
    block = rf"<!-- ci: {re.escape(name)} -->\s*```bash\n(.*?)```"
    found = re.search(block, text, re.DOTALL)
    if not found:
        sys.exit(f"README.md has no shell block after <!-- ci: {name} -->")
    print(found[1])


if __name__ == "__main__":
    main()
