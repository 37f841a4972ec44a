"""Networks from Python: against the equations, written out in numpy, and against the program's own engine."""

import numpy as np
import pytest

import eqprop
from conftest import assert_same_bits, double


def sigma(x):
    """Eq. 102."""
    return 1 / (1 + np.exp(-4 * (x - 0.5)))


def test_the_states_are_a_fixed_point_of_the_equations(minibatch):
    # Eq. 98 with one hidden layer: s⁰ = σ(W₀₁ s¹ + b₀), s¹ = σ(W₁₂ x + b₁ + W₁₀ s⁰).
    images, _ = minibatch
    net = double(psi=0, activation="sigmoid", steps=500, tolerance=1e-13)
    w, s = net.weights, net.settle(images)
    x = images / 255
    output = sigma(s.states[1] @ w["forward.0.weight"].T + w["forward.0.bias"])
    hidden = sigma(x @ w["forward.1.weight"].T + w["forward.1.bias"] + s.states[0] @ w["feedback.0.weight"].T)
    assert np.abs(output - s.states[0]).max() < 1e-12
    assert np.abs(hidden - s.states[1]).max() < 1e-12
    assert s.converged.all() and s.residual.max() <= 1e-13
    assert np.array_equal(s.output, s.states[0])
    assert s.steps.shape == s.residual.shape == (20,)


def test_a_softmax_readout_reads_the_states_and_sends_back_its_error(minibatch):
    # z = W₀₁ s¹ + b₀, ŷ = softmax(z), e = β(y − ŷ), and s¹ = σ(W₁₂ x + b₁ + W₁₀ e); Δ_W01 = (e' − e) s¹ᵀ/β.
    images, classes = minibatch
    net = double(rule="vf", psi=30, activation="sigmoid", K=3, beta=0.3, readout="softmax")
    w, x, y = net.weights, images / 255, np.eye(10)[classes]
    s = net.settle(images)
    z = s.states[1] @ w["forward.0.weight"].T + w["forward.0.bias"]
    np.testing.assert_allclose(s.output, z, atol=1e-13)
    y_hat = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    loss = -np.log(y_hat[np.arange(20), classes]).mean()
    assert abs(net.evaluate(images, classes).loss - loss) < 1e-12
    sent = np.zeros((20, 10))
    for step in net.second_phase(images, classes):
        z = step.before[1] @ w["forward.0.weight"].T + w["forward.0.bias"]
        e = 0.3 * (y - np.exp(z) / np.exp(z).sum(1, keepdims=True))
        hidden = sigma(x @ w["forward.1.weight"].T + w["forward.1.bias"] + e @ w["feedback.0.weight"].T)
        np.testing.assert_allclose(step.before[0], sent, atol=1e-13)
        np.testing.assert_allclose(step.states[0], e, atol=1e-13)
        np.testing.assert_allclose(step.states[1], hidden, atol=1e-13)
        np.testing.assert_allclose(step.delta["forward.0"], (e - sent).T @ step.before[1] / (0.3 * 20), atol=1e-13)
        sent = e


def test_the_second_phase_is_that_of_the_equations(minibatch):
    # Eq. 99: s⁰ ← σ(W₀₁ s¹ + b₀) + β(y − s⁰); Eq. 12: Δ = (s'ⁿ − sⁿ) sⁿ⁺¹ᵀ/β, a mean over the batch.
    images, classes = minibatch
    net = double(rule="vf", psi=30, activation="sigmoid", K=4, beta=0.3)
    w, x, y = net.weights, images / 255, np.eye(10)[classes]
    steps = net.second_phase(images, classes)
    assert [step.t for step in steps] == [0, 1, 2, 3]
    settled = net.settle(images)
    assert np.array_equal(steps[0].before[0], settled.states[0])
    for step in steps:
        (s0, s1), (n0, n1) = step.before, step.states
        assert step.beta == 0.3
        output = sigma(s1 @ w["forward.0.weight"].T + w["forward.0.bias"]) + 0.3 * (y - s0)
        hidden = sigma(x @ w["forward.1.weight"].T + w["forward.1.bias"] + s0 @ w["feedback.0.weight"].T)
        np.testing.assert_allclose(n0, output, atol=1e-13)
        np.testing.assert_allclose(n1, hidden, atol=1e-13)
        scale = 1 / (0.3 * 20)
        np.testing.assert_allclose(step.delta["forward.0"], scale * (n0 - s0).T @ s1, atol=1e-12)
        np.testing.assert_allclose(step.delta["forward.1"], scale * (n1 - s1).T @ x, atol=1e-12)
        np.testing.assert_allclose(step.delta["feedback.0"], scale * (n1 - s1).T @ s0, atol=1e-12)
        np.testing.assert_allclose(step.delta["forward.0.bias"], scale * (n0 - s0).sum(0), atol=1e-12)
    assert_same_bits(w, net.weights)


def test_what_is_learnt_is_the_sum_of_the_updates(minibatch):
    # VF: θ ← θ + η Σ Δ(t), η of layer n for forward.n and feedback.n.
    net = double(rule="vf", psi=30, beta=0.3)
    before, steps = net.weights, net.second_phase(*minibatch)
    net.learn(*minibatch, beta=0.3)
    after = net.weights
    rates = {"forward.0": 0.01, "feedback.0": 0.01, "forward.1": 0.02}
    for name, rate in rates.items():
        moved = after[name + ".weight"] - before[name + ".weight"]
        np.testing.assert_allclose(moved, rate * sum(step.delta[name] for step in steps), atol=1e-13)


def test_learning_lowers_the_loss(minibatch):
    net = double(rule="ep", learning_rates=[0.1, 0.05])
    before = net.evaluate(*minibatch)
    for _ in range(40):
        net.learn(*minibatch)
    after = net.evaluate(*minibatch)
    assert after.loss < 0.5 * before.loss
    assert after.errors < before.errors and after.images == 20
    assert after.error_percent == 100 * after.errors / 20


@pytest.mark.parametrize("dtype, tolerance", [("f32", 2e-6), ("f64", 1e-14)])
def test_floats_are_the_bytes_divided_by_255(minibatch, dtype, tolerance):
    images, classes = minibatch
    net = eqprop.Network([784, 32, 10], "cvf", dtype=dtype)
    floats = (images / 255).astype("float32" if dtype == "f32" else "float64")
    a, b = net.settle(images), net.settle(floats)
    assert a.states[0].dtype == floats.dtype
    assert np.abs(a.states[1] - b.states[1]).max() <= tolerance
    # The fast engine has the bytes, the plain one the floats.
    a, b = net.evaluate(images, classes), net.evaluate(floats, classes)
    assert a.errors == b.errors and abs(a.loss - b.loss) < 1e-6
    nets = net.copy(), net.copy()
    nets[0].learn(images, classes, beta=0.2)
    nets[1].learn(floats, classes, beta=0.2)
    for name, weight in nets[0].weights.items():
        np.testing.assert_allclose(weight, nets[1].weights[name], atol=2e-6)


def test_arrays_of_any_layout_and_kind(minibatch):
    images, classes = minibatch
    net = double()
    expected = net.settle(images).states[0]
    wide = np.zeros((20, 2 * 784), "uint8")
    wide[:, ::2] = images

    class Exchanged:
        """An object with DLPack and nothing else."""

        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **keywords):
            return self.array.__dlpack__(**keywords)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    class Arraylike:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    for x in [wide[:, ::2], np.asfortranarray(images), images.reshape(20, 28, 28), Exchanged(images), Arraylike(images)]:
        assert np.array_equal(net.settle(x).states[0], expected)
    report = net.evaluate(images, classes)
    for y in [list(classes), classes.astype("int64"), np.eye(10)[classes], Exchanged(classes)]:
        assert net.evaluate(images, y).errors == report.errors
        assert net.evaluate(images, y).loss == report.loss


@pytest.mark.parametrize(
    "x, y, said",
    [
        (np.zeros((3, 783), "uint8"), [0, 1, 2], "takes images of 784 pixels"),
        (np.zeros(784, "uint8"), [0], "takes images of 784 pixels"),
        (np.zeros((0, 784), "uint8"), [], "takes images of 784 pixels"),
        (np.zeros((3, 784), "int64"), [0, 1, 2], "images are bytes"),
        (np.full((3, 784), 255.0), [0, 1, 2], "divide bytes by 255"),
        (np.full((3, 784), np.nan), [0, 1, 2], "NaN"),
        (np.zeros((3, 784), "uint8"), [0, 1], "classes of 3 images are (3,)"),
        (np.zeros((3, 784), "uint8"), [0, 1, 10], "whole numbers from 0 to 9"),
        (np.zeros((3, 784), "uint8"), [0, 1, -1], "whole numbers from 0 to 9"),
        (np.zeros((3, 784), "uint8"), [0, 1, 0.5], "whole numbers from 0 to 9"),
        (np.zeros((3, 784), "uint8"), np.full((3, 10), 0.1), "a single 1 in a row of 0"),
    ],
)
def test_what_does_not_fit_is_refused(x, y, said):
    net = eqprop.Network([784, 16, 10], "cvf")
    with pytest.raises(eqprop.UsageError) as error:
        net.evaluate(x, y)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "arguments, settings, said",
    [
        (([784, 16, 10],), {}, "give rule="),
        (([784, 16, 10], "hebb"), {}, "choose ep, cep"),
        (([784, 16, 10], "cvf"), {"betta": 1}, "did you mean beta?"),
        (([784, 16, 10], "cvf"), {"decay": 1e-4}, "learning_decay, synapse_decay"),
        (([784, 16, 10], "cvf"), {"psi": 200}, "from 0 to 180"),
        (([784, 10], "cvf"), {}, "at least one hidden layer"),
        ((["auto", 16, 10], "cvf"), {}, "dims"),
        (([784, 16, 10], "ep"), {"psi": 45}, "ties them"),
        (([784, 16, 10], "cvf"), {"beta": object()}, "settings are numbers"),
    ],
)
def test_wrong_settings_name_what_to_do(arguments, settings, said):
    with pytest.raises(eqprop.UsageError) as error:
        eqprop.Network(*arguments, **settings)
    assert said in str(error.value)


def test_settings_are_those_of_the_configuration():
    net = eqprop.Network([784, 16, 10], "cvf", beta=np.float64(0.25), learning_K=7, settle_steps=33, seed=np.int64(3))
    config = net.config
    assert (config["learning"]["beta"], config["learning"]["K"]) == (0.25, 7)
    assert (config["settle"]["steps"], config["training"]["seed"]) == (33, 3)
    assert net.dims == [784, 16, 10]
    assert eqprop.Network(config="ep-2h").dims == [784, 512, 512, 10]


def test_weights_are_taken_and_given(minibatch):
    net, other = double(seed=1), double(seed=2)
    other.weights = net.weights
    assert_same_bits(net.weights, other.weights)
    changed = net.weights["forward.0.weight"] + 1
    net.weights = {"forward.0": changed}
    assert np.array_equal(net.weights["forward.0.weight"], changed)
    assert np.array_equal(net.weights["forward.1.weight"], other.weights["forward.1.weight"])
    for given, said in [
        ({"forward.7": changed}, "the network has forward.0.weight"),
        ({"forward.0": changed[1:]}, "has shape [9, 32] and not [10, 32]"),
        ({"forward.0": np.full_like(changed, np.nan)}, "not finite"),
    ]:
        with pytest.raises((eqprop.Error, eqprop.UsageError)) as error:
            net.weights = given
        assert said in str(error.value)
    twin = net.copy()
    twin.learn(*minibatch)
    assert np.array_equal(net.weights["forward.0.weight"], changed)


def test_angles(minibatch):
    # With ever smaller β and η, VF with symmetric weights follows the gradient (Theorem 1), but for the σ′ of the output.
    net = double(rule="ep", steps=60, K=10, beta=0.01)
    angle = net.angle(*minibatch)
    assert float(angle) == angle.degrees < 45
    assert set(angle.by_matrix) == {"forward.0", "forward.1"}
    assert 0.5 < angle.sign_match <= 1
    explanation = net.explain(*minibatch).to_dict()
    assert explanation["rest_degrees"]["all"]["mean"] < 1
    with pytest.raises(eqprop.UsageError):
        double(rule="bptt").angle(*minibatch)
    with pytest.raises(eqprop.UsageError, match="cannot go back"):
        double(rule="ep", steps=5, K=6).angle(*minibatch)


def test_a_saved_network_is_the_same(minibatch, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    net = double()
    net.learn(*minibatch)
    net.save(tmp_path / "weights.safetensors")
    assert_same_bits(safetensors.load_file(tmp_path / "weights.safetensors"), net.weights)


def test_it_shows_itself():
    net = double(psi=45)
    assert repr(net) == "Network([784, 32, 10], rule=\"cvf\", seed=0)"
    assert "C-VF" in net._repr_html_() and "Ψ = 45°" in net._repr_html_()
