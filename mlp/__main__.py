"""`python -m mlp`."""

from mlp.app.cli import main

if __name__ == "__main__":
    main()
