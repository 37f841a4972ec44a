"""PyTorch opens a checkpoint, and finds the fixed point that the module finds. Skipped without PyTorch."""

import numpy as np
import pytest

import eqprop

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dims", [(784, 32, 10), (784, 32, 24, 10)])
def test_torch_settles_a_checkpoint_to_the_same_states(dims, glyphs, folders):
    from safetensors.torch import load_file

    net = eqprop.Network(list(dims), "cvf", psi=45, dtype="f64", learning_rates=[0.02, 0.01, 0.005][: len(dims) - 1])
    run = eqprop.train(net, "glyphs", epochs=1, limit_train=400, name="torch", **folders)
    weights = load_file(run.checkpoint)
    x = torch.tensor(glyphs[0]).double() / 255
    layers = len(dims) - 1
    forward = [torch.nn.Linear(dims[-n - 2], dims[-n - 1], dtype=torch.float64) for n in range(layers)]
    for n, linear in enumerate(forward):
        linear.load_state_dict({p: weights[f"forward.{n}.{p}"] for p in ["weight", "bias"]})
    states = [torch.zeros(len(x), d, dtype=torch.float64) for d in reversed(dims[1:])]
    with torch.no_grad():
        for _ in range(500):
            below = states[1:] + [x]
            back = [0] + [states[n] @ weights[f"feedback.{n}.weight"].T for n in range(layers - 1)]
            # Eq. 102: σ(a) = 1 / (1 + exp(−4(a − ½))).
            states = [torch.sigmoid(4 * (forward[n](below[n]) + back[n]) - 2) for n in range(layers)]
    settled = eqprop.load(run.checkpoint).settle(glyphs[0]).states
    for ours, theirs in zip(settled, states):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-6)
    # A DLPack array of PyTorch is taken as it is.
    again = eqprop.load(run.checkpoint).settle(x).states
    assert all(np.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(again, settled))
