"""Equilibrium Propagation with continual weight updates (EP, C-EP, C-VF): the engine of the program `eqprop`.

    net = eqprop.Network([784, 512, 10], rule="cvf", psi=45, seed=0)
    run = eqprop.train(net, data="mnist", epochs=3, progress=True)

Layers are numbered as in the paper: 0 is the output, the last hidden layer comes before the input. Arrays are numpy's;
objects with `__array__`, or with DLPack on the CPU, are accepted. docs/python.md explains the rest.
"""

import os as _os

# Without this, RUST_BACKTRACE, which is for panics, would add a trace to the text of candle's errors.
_os.environ.setdefault("RUST_LIB_BACKTRACE", "0")

from ._eqprop import (  # noqa: E402
    Angle,
    Diverged,
    Error,
    Explanation,
    Interrupted,
    Network,
    Report,
    Run,
    Settled,
    Step,
    UsageError,
    __version__,
    load,
    load_data,
    runs,
    train,
)

__all__ = [
    "Angle",
    "Diverged",
    "Error",
    "Explanation",
    "Interrupted",
    "Network",
    "Report",
    "Run",
    "Settled",
    "Step",
    "UsageError",
    "__version__",
    "load",
    "load_data",
    "runs",
    "train",
]
