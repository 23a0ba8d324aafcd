"""Our recurrent mixers against torch's, forward and backward on a CPU, timed in turns in one
process: lstm against torch.nn.LSTM, mamba and mamba2 against the torch paths of `transformers`.

python -m experiments.benchmarks.mixers_torch [--lengths=256,1024] [--rounds=3]
                                    one JSON object; wants pip install "isoflop[parity]"

CPU-seconds of this process, the least of all rounds, one thread each; d_model 256, random weights.
Ours have their matrices in and out, torch's LSTM has the one in alone: its matrix out is added.
"""

import argparse
import json
import sys
import time

from experiments.benchmarks import contest, mixers
from launch.devices import allocator

D_MODEL, TOKENS = 256, 4096


def _lstm(d: int):
    import torch

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = torch.nn.LSTM(d, d, batch_first=True), torch.nn.Linear(d, d)

        def forward(self, x_BTD):
            return self.out(self.lstm(x_BTD)[0])

    return Both()


def _mamba(d: int):
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    return MambaMixer(MambaConfig(hidden_size=d, state_size=16, expand=2), layer_idx=0)


def _mamba2(d: int):
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    heads = 2 * d // 64 or 1
    config = Mamba2Config(
        hidden_size=d,
        num_heads=heads,
        head_dim=2 * d // heads,
        state_size=64,
        expand=2,
        n_groups=1,
        chunk_size=64,
    )
    return Mamba2Mixer(config, layer_idx=0)


PEERS = {"lstm": _lstm, "mamba": _mamba, "mamba2": _mamba2}


def _call(module, d: int, length: int, tokens: int):
    """A call that goes forward and backward once."""
    import torch

    x_BTD = torch.randn(max(1, tokens // length), length, d, requires_grad=True)
    g_BTD = torch.randn_like(x_BTD)

    def one():
        module.zero_grad()
        module(x_BTD).backward(g_BTD)

    one()
    return one


def measure(lengths, rounds: int, d_model: int = D_MODEL, tokens: int = TOKENS) -> dict:
    """Rows of {"mixer", "context", "us", "torch_us", "ratio"}, of a token; ratio: ours over
    torch's.
    """
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for length in lengths:
        for name, made in PEERS.items():
            ours, _, _ = mixers.prepared(name, d_model, length, tokens)
            theirs = _call(made(d_model), d_model, length, tokens)
            pairs = [(_spent(ours), _spent(theirs)) for _ in range(rounds)]
            us, peer = (min(p) / tokens * 1e6 for p in zip(*pairs))
            about = {"mixer": name, "context": length, "us": us, "torch_us": peer}
            rows.append({**about, "ratio": us / peer})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {"machine": contest.machine(), "rounds": rounds, "d_model": d_model, "mixers": rows}


def _spent(call) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--lengths", default="256,1024")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", choices=("full", "toy"), default="full")
    given = parser.parse_args(argv)
    if given.rounds < 1 or not given.lengths.replace(",", "").isdigit():
        print("mixers_torch: whole numbers expected", file=sys.stderr)
        return 2
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as e:
        print(f'mixers_torch: {e}: pip install -e ".[parity]"', file=sys.stderr)
        return 2
    more = {"d_model": 32, "tokens": 64} if given.scale == "toy" else {}
    lengths = [int(n) for n in given.lengths.split(",")]
    print(json.dumps(measure(lengths, given.rounds, **more)))
    return 0


if __name__ == "__main__":
    allocator.restart()  # memory as every command of ours has it
    sys.exit(main())
