"""``python -m streamproc.cli``."""

from streamproc.cli import main

if __name__ == "__main__":
    main()
