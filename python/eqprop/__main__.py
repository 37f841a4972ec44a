"""The command `eqprop`, which is also `python -m eqprop`."""

import signal
import sys

from . import _eqprop


def main() -> int:
    """Runs the command line, as the program does. Returns the exit status."""
    # Python's own handlers would wait for Python code to run, of which there is none before the command has ended.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "SIGXFSZ"):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    words = list(sys.argv)
    if words[0].endswith("__main__.py"):
        words[0] = "eqprop"
    return _eqprop.main(words)


if __name__ == "__main__":
    sys.exit(main())
