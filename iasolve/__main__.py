"""``python -m iasolve``: the command line."""

from iasolve.cli import main

if __name__ == "__main__":
    main()
