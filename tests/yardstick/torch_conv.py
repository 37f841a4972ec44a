"""Milliseconds a training minibatch of EP or C-EP with convolutions in plain PyTorch, float32 on the CPU.

usage: torch_conv.py ep|cep MINIBATCHES [--threads N] [--steps T] [--data DIR]
       torch_conv.py ep|cep --check FILE

What the speed of the presets ep-conv and cep-conv is compared with, written as a careful user of PyTorch would: no
autograd, all images of a minibatch at once, updates in place. No early end of the first phase. With --data, a folder with
MNIST's IDX files, it trains on MNIST; otherwise on noise. --check takes a safetensors file with weights, a minibatch
`x` (B, 784) and `y` (B, 10), and weights called `after.…`; it says by how much its own weights after that minibatch differ
from these, and fails where that is more than 1e-9 of the change of the weights in float64, 1e-4 in float32.
"""

import argparse
import math
import time

import torch
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from torch_ep import images

# Ernoult et al. (2019), P-conv: T, K, β, η (output first). C-EP's rates are those of the preset.
T, K, BETA = 200, 10, 0.4
RATES = {"ep": [0.015, 0.035, 0.15], "cep": [0.001, 0.0023, 0.01]}
BATCH = 20
# Maps, and the side of those that a convolution reads; output first. Filters are 5x5, windows 2x2.
SHAPES = [(64, 4), (32, 12), (1, 28)]


def sigma(h):
    return h.clamp(0, 1)


class Network:
    """Layers are numbered from the output; weight[n] leads from layer n+1 into layer n and, transposed, back."""

    def __init__(self):
        shapes = [(10, 64 * 4 * 4), (64, 32, 5, 5), (32, 1, 5, 5)]
        self.weight, self.bias = [], []
        for shape in shapes:
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            self.weight.append(torch.empty(shape).uniform_(-bound, bound))
            self.bias.append(torch.empty(shape[0]).uniform_(-bound, bound))

    def start(self, count):
        return [torch.zeros(count, 10)] + [torch.zeros(count, maps, side, side) for maps, side in SHAPES[:2]]

    def convolve(self, n, s):
        """What layer n gets from above, and where the windows have their largest values."""
        return F.max_pool2d(F.conv2d(s, self.weight[n], self.bias[n]), 2, return_indices=True)

    def step(self, s, drive, nudge=None):
        """The states after a step, and where the windows of the second convolution had their largest values before it."""
        hidden = s[1].flatten(1)
        output = sigma(torch.addmm(self.bias[0], hidden, self.weight[0].t()))
        if nudge is not None:
            target, beta = nudge
            output += beta * (target - s[0])
        from_above, largest = self.convolve(1, s[2])
        from_below = (s[0] @ self.weight[0]).view_as(s[1])
        back = F.conv_transpose2d(F.max_unpool2d(s[1], largest, 2), self.weight[1])
        return [output, sigma(from_above + from_below), sigma(drive + back)], largest

    def learn(self, x, largest_x, before, largest, after, rates, scale):
        """The update of a step, or of a whole phase, in place; `largest` is that of the states before."""
        _, largest_after = self.convolve(1, after[2])

        def primitive(s, largest):
            return conv2d_weight(s[2], self.weight[1].shape, F.max_unpool2d(s[1], largest, 2))

        changes = [
            after[0].t() @ after[1].flatten(1) - before[0].t() @ before[1].flatten(1),
            primitive(after, largest_after) - primitive(before, largest),
            conv2d_weight(x, self.weight[2].shape, F.max_unpool2d(after[2] - before[2], largest_x, 2)),
        ]
        for n, change in enumerate(changes):
            moved = after[n] - before[n]
            self.weight[n].add_(change, alpha=rates[n] * scale)
            self.bias[n].add_(moved.sum(0) if n == 0 else moved.sum((0, 2, 3)), alpha=rates[n] * scale)

    def minibatch(self, rule, x, y, steps):
        """Both phases; the output of the first."""
        x = x.view(-1, 1, 28, 28)
        scale, rates = 1 / (BETA * len(x)), RATES[rule]
        s = self.start(len(x))
        drive, largest_x = self.convolve(2, x)
        for _ in range(steps):
            s, _ = self.step(s, drive)
        first, first_largest = s, None
        for _ in range(K):
            following, largest = self.step(s, drive, (y, BETA))
            if first_largest is None:
                first_largest = largest
            if rule == "cep":
                self.learn(x, largest_x, s, largest, following, rates, scale)
                drive, largest_x = self.convolve(2, x)
            s = following
        if rule == "ep":
            self.learn(x, largest_x, first, first_largest, s, rates, scale)
        return first[0]


def check(rule, file, steps):
    from safetensors.torch import load_file

    tensors = load_file(file)
    torch.set_default_dtype(tensors["x"].dtype)
    most = 1e-9 if tensors["x"].dtype == torch.float64 else 1e-4
    network = Network()
    for n in range(3):
        network.weight[n] = tensors[f"forward.{n}.weight"].clone()
        network.bias[n] = tensors[f"forward.{n}.bias"].clone()
    network.minibatch(rule, tensors["x"], tensors["y"], steps)
    for n in range(3):
        for kind, found in (("weight", network.weight[n]), ("bias", network.bias[n])):
            name = f"forward.{n}.{kind}"
            moved = (tensors["after." + name] - tensors[name]).norm()
            off = ((tensors["after." + name] - found).norm() / moved).item()
            print(f"{name}: {off:.1e}")
            if not off < most:
                raise SystemExit(f"{name} differs by {off:.1e} of what it has moved")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rule", choices=["ep", "cep"])
    parser.add_argument("minibatches", type=int, nargs="?", default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=T)
    parser.add_argument("--data")
    parser.add_argument("--check")
    choice = parser.parse_args()
    torch.set_num_threads(choice.threads)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    if choice.check:
        return check(choice.rule, choice.check, choice.steps)
    network = Network()
    warm_up, wrong = 2, 0
    x_all, y_all = images(BATCH * (choice.minibatches + warm_up), choice.data)
    for m in range(choice.minibatches + warm_up):
        if m == warm_up:
            started = time.perf_counter()
        x, y = x_all[BATCH * m :][:BATCH], y_all[BATCH * m :][:BATCH]
        output = network.minibatch(choice.rule, x, y, choice.steps)
        wrong += int((output.argmax(1) != y.argmax(1)).sum())
    milliseconds = 1000 * (time.perf_counter() - started) / choice.minibatches
    share = 100 * wrong / (BATCH * (choice.minibatches + warm_up))
    print(f"{milliseconds:.1f} ms a minibatch; {share:.1f} % of the images classified wrongly on the way")


if __name__ == "__main__":
    main()
