"""Makes ``python -m lossatlas`` the same as ``lossatlas``."""

from lossatlas.cli import main

if __name__ == "__main__":
    main()
