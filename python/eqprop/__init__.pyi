from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Optional, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

__version__: str

Path = Union[str, PathLike[str]]
#: float32 or float64, depending on `training.dtype`.
Floats = NDArray[Any]
#: (B, d_in) or (B, …) with as many pixels: bytes (uint8), or floats from 0 to 1. Anything with `__array__` or DLPack.
Images = ArrayLike
#: (B,) whole numbers, or one-hot (B, d_0).
Classes = ArrayLike
#: Called at every step of the second phase; returns None, or other updates by name.
RuleHook = Callable[["Step"], Optional[Mapping[str, ArrayLike]]]
#: Called at every change with name, weights and the wished change η·Δ; returns the new weights.
SynapseHook = Callable[[str, NDArray[np.float64], NDArray[np.float64]], ArrayLike]
Progress = Union[bool, Callable[[dict[str, Any]], object], None]
#: A DataFrame of pandas or polars where one is installed, else a list of dicts.
Table = Any

class Error(RuntimeError):
    """An operation that cannot be done; the message says what to do."""

class UsageError(ValueError):
    """A wrong request: a setting, a shape, a name."""

class Diverged(Error):
    """A run that has diverged."""

    run: Run

class Interrupted(KeyboardInterrupt):
    """A run that Ctrl-C has stopped. It has been saved, and `run.resume()` resumes it."""

    run: Run

class Network:
    """A network that learns by Equilibrium Propagation.

    `dims` are layer sizes, input first, for example [784, 512, 10]; `rule`, with the number of hidden layers, picks the
    preset, as `eqprop train --algo` does. `config` is a configuration file or the name of a preset instead. Any key of
    the configuration is a keyword: `beta=0.1`, `psi=45`, `seed=1`, `learning_decay=1e-4` where two sections have a
    `decay`. The weights are those of `eqprop train`, bit for bit.
    """

    def __init__(
        self,
        dims: Optional[Sequence[int]] = None,
        rule: Optional[Literal["ep", "cep", "cep-rescaled", "vf", "cvf", "bptt", "rbp", "asym-ep", "dyadic-ep"]] = None,
        *,
        config: Optional[Path] = None,
        **settings: Any,
    ) -> None: ...
    @property
    def dims(self) -> list[int]:
        """Layer sizes, input first."""
    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """The configuration, by section and key."""
    @property
    def weights(self) -> dict[str, Floats]:
        """A copy of all weights and biases, by name: `weights["forward.0.weight"]`, (d_0, d_1). To change some, assign a
        dict with these."""
    @weights.setter
    def weights(self, weights: Mapping[str, ArrayLike]) -> None: ...
    def settle(self, x: Images) -> Settled:
        """Runs the first (free) phase."""
    def second_phase(self, x: Images, y: Classes, *, beta: Optional[float] = None) -> list[Step]:
        """Runs both phases on a minibatch and returns the steps of the second. Weights change during them by the rule, and
        are restored afterwards."""
    def learn(
        self,
        x: Images,
        y: Classes,
        *,
        beta: Optional[float] = None,
        epochs: float = 0.0,
        rule: Optional[RuleHook] = None,
        synapse: Optional[SynapseHook] = None,
    ) -> Report:
        """Learns a minibatch: runs both phases, and changes the weights. Returns the report of the first phase.

        `beta` defaults to that of the configuration, its sign drawn as in a run; `epochs` is the number of epochs done,
        where learning rates fall. `rule` is called at every step of the second phase (with EP, which learns from the
        whole phase, once), `synapse` at every change of each weight and bias, in float64.
        """
    def angle(
        self,
        x: Images,
        y: Classes,
        *,
        beta: Optional[float] = None,
        rule: Optional[RuleHook] = None,
        synapse: Optional[SynapseHook] = None,
    ) -> Angle:
        """The angle Ψ(Δtot, −∇BPTT tot) between the rule's change of the weights in a minibatch and the descent direction
        of BPTT. The weights of the network do not change."""
    def explain(self, x: Images, y: Classes) -> Explanation:
        """The causes of the angle of a minibatch. The images are bytes; weights do not change."""
    def evaluate(self, x: Images, y: Classes) -> Report:
        """Classifies images: the first phase alone."""
    def copy(self) -> Network:
        """Copies the network in its present state."""
    def save(self, path: Path) -> None:
        """Writes the weights into a safetensors file, from which `eqprop train --init` starts."""

class Settled:
    """The end of the first (free) phase."""

    @property
    def states(self) -> list[Floats]:
        """s_*, (B, d_n) each: `states[0]` is the output (z of a softmax readout), the last the layer next to the input."""
    @property
    def output(self) -> Floats:
        """s⁰, (B, d_0)."""
    @property
    def residual(self) -> NDArray[np.float64]:
        """The largest |s_T − s_{T−1}| of any neuron, (B,)."""
    @property
    def residual_two_steps(self) -> NDArray[np.float64]:
        """The largest |s_T − s_{T−2}| of any neuron, (B,): small beside `residual` in a cycle of period 2."""
    @property
    def steps(self) -> NDArray[np.uintp]:
        """The steps that each image took, (B,)."""
    @property
    def converged(self) -> NDArray[np.bool_]:
        """True for each image that has settled within `settle.tolerance`, (B,)."""

class Step:
    """One step of the second (nudged) phase, from s_t to s_{t+1}."""

    @property
    def t(self) -> int: ...
    @property
    def beta(self) -> float: ...
    @property
    def states(self) -> list[Floats]:
        """s_{t+1}, (B, d_n) each, the output first."""
    @property
    def before(self) -> list[Floats]:
        """s_t, (B, d_n) each, the output first."""
    @property
    def delta(self) -> dict[str, Floats]:
        """Δ_θ(t), a mean over the batch, without η: `delta["forward.0"]` (d_0, d_1), `delta["forward.0.bias"]` (d_0,)."""
    @property
    def weights(self) -> dict[str, Floats]:
        """In a hook the weights at which the update is made, θ_t with a continual rule; elsewhere those before the phase."""

class Report:
    """The results of the first phase for some images."""

    @property
    def images(self) -> int: ...
    @property
    def errors(self) -> int:
        """The number of wrongly classified images."""
    @property
    def error_percent(self) -> float: ...
    @property
    def loss(self) -> float:
        """Mean loss ℓ of an image."""
    @property
    def residual(self) -> float:
        """The largest |s_T − s_{T−1}| of any neuron."""
    @property
    def steps(self) -> float:
        """Mean steps of the first phase."""
    @property
    def unsettled(self) -> int:
        """The number of images that have not settled."""

class Angle:
    """Ψ(Δtot, −∇BPTT tot), the angle between a rule's change of the weights and the descent direction of BPTT."""

    @property
    def degrees(self) -> float:
        """Over all weight matrices."""
    @property
    def by_matrix(self) -> dict[str, float]: ...
    @property
    def sign_match(self) -> float:
        """The share of synapses whose Δtot and −∇tot have the same sign."""
    @property
    def sign_match_by_matrix(self) -> dict[str, float]: ...
    def __float__(self) -> float: ...

class Explanation:
    """The causes of the angle of a minibatch."""

    def to_dict(self) -> dict[str, Any]:
        """`start_degrees`, `in_order`, `alone` and `rest_degrees`, as `eqprop angle --explain --json` has them."""
    def _repr_html_(self) -> str: ...

class Run:
    """A run: its records and its checkpoints; by its name, its folder or a checkpoint."""

    def __init__(self, what: Path, *, runs_dir: Path = "runs", checkpoints_dir: Path = "checkpoints") -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> PathLike[str]:
        """Its folder, with config.toml, metrics.jsonl and the files of TensorBoard."""
    @property
    def checkpoint(self) -> PathLike[str]:
        """Its last checkpoint, a safetensors file, from which `eqprop train --resume` resumes."""
    @property
    def best_checkpoint(self) -> PathLike[str]:
        """The checkpoint of its best epoch."""
    @property
    def metrics(self) -> Table:
        """The numbers of each epoch, 0 before training."""
    @property
    def result(self) -> dict[str, Any]:
        """Its result: errors in percent, the best epoch, and its settings by key."""
    def network(self, *, best: bool = False) -> Network:
        """The network of its last checkpoint, or of its best."""
    def resume(
        self,
        epochs: Optional[int] = None,
        *,
        data_dir: Optional[Path] = None,
        threads: Optional[int] = None,
        progress: Progress = None,
        **settings: Any,
    ) -> Run:
        """Resumes from its last checkpoint, up to `epochs` epochs in all where that is given."""
    def _repr_html_(self) -> str: ...

def train(
    net: Network,
    data: Optional[Literal["auto", "mnist", "fashion-mnist", "cifar10", "glyphs"]] = None,
    epochs: Optional[int] = None,
    *,
    data_dir: Optional[Path] = None,
    name: Optional[str] = None,
    runs_dir: Path = "runs",
    checkpoints_dir: Path = "checkpoints",
    resume: bool = False,
    overwrite: bool = False,
    threads: Optional[int] = None,
    progress: Progress = None,
    **settings: Any,
) -> Run:
    """Trains a network as `eqprop train` does: the same folders, the same checkpoints, the same bits. Afterwards the
    network has the final weights.

    `data_dir` is a file or folder with a set. `resume=True` resumes the run where it already exists; `overwrite=True`
    moves it aside. `progress` is True for a line per epoch (a bar on a terminal), or a function that gets the numbers of
    each epoch as a dict. Any key of [training] is a keyword. Ctrl-C saves the run and raises
    `Interrupted`.
    """

def runs(runs_dir: Path = "runs") -> Table:
    """All runs in a folder, with their results and settings. Errors are in percent."""

def load(what: Path, *, runs_dir: Path = "runs", checkpoints_dir: Path = "checkpoints") -> Network:
    """The network that a run has saved: by the run's name, its folder, or a checkpoint."""

def load_data(
    data: Literal["auto", "mnist", "fashion-mnist", "cifar10", "glyphs"] = "auto", *, data_dir: Optional[Path] = None
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """A data set as the program reads it: (x_train, y_train), (x_test, y_test); images (N, pixels), classes (N,)."""
