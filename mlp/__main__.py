"""`python -m mlp`."""

from mlp.cli import main

if __name__ == "__main__":
    main()
