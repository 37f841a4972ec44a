"""Milliseconds per training minibatch of EP, C-EP or C-VF in plain PyTorch, float32 on a GPU: torch_ep.py's program there.

usage: torch_gpu.py ep|cep|cvf 1|2 MINIBATCHES [--captured] [--order synchronous|alternating] [--data DIR] [--device D]

With --captured, both phases of a minibatch are one CUDA graph, as a user would do who cares about speed: the images are
copied to where the graph reads them, and it is launched again. All T steps, without TF32.
"""

import torch
from torch_ep import BATCH, SETTINGS, WARM_UP, Network, arguments, images, measure


def captured(learn, x, y):
    """`learn` for minibatches like these, recorded once."""
    torch.cuda.synchronize()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            learn(x, y)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        first = learn(x, y)

    def again(new_x, new_y):
        x.copy_(new_x)
        y.copy_(new_y)
        graph.replay()
        return first

    return again


def main():
    parser = arguments(__doc__)
    parser.add_argument("--captured", action="store_true")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the program out")
    choice = parser.parse_args()
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    settings = SETTINGS[choice.rule, choice.depth]
    network = Network(choice.depth, tied=choice.rule != "cvf").to(choice.device)
    turns = network.turns(choice.order)
    x_all, y_all = (t.to(choice.device) for t in images(BATCH * (choice.minibatches + WARM_UP), choice.data))

    def learn(x, y):
        return network.minibatch(x, y, settings, turns, choice.rule)

    if choice.captured:
        learn = captured(learn, x_all[:BATCH].clone(), y_all[:BATCH].clone())
    # The CPU has nothing to wait for.
    waits = {} if choice.device == "cpu" else {"wait": torch.cuda.synchronize}
    measure(learn, x_all, y_all, choice.minibatches, **waits)


if __name__ == "__main__":
    main()
