"""The other contenders: a plain PyTorch GPT and transformers' Llama and Mixtral, trained by AdamW
on the same weights and batches as ours.

A program of its own that imports nothing of isoflop (extra `bench`), so that no process of ours
imports torch:

python experiments/benchmarks/peer.py --kind=gpt --weights=HF_DIR --batches=FILE.npy [--compile]
[--context=T] [--steps=N]

--batches: int32 (batches, B, T + 1). It speaks the protocol of contest.py; with --losses=N it
prints the losses of N updates instead.
"""

import argparse
import json
import os
import resource
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_out = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (
            a.view(b, t, self.heads, -1).transpose(1, 2)
            for a in self.c_attn(self.ln_1(x)).split(d, -1)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.c_out(functional.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """GPT-2's function in as few lines as plain PyTorch takes."""

    def __init__(self, cfg):
        super().__init__()
        width = cfg["n_embd"]
        self.wte, self.wpe = (
            nn.Embedding(cfg["vocab_size"], width),
            nn.Embedding(cfg["n_positions"], width),
        )
        self.h = nn.ModuleList(
            Block(width, cfg["n_head"], cfg["n_inner"] or 4 * width) for _ in range(cfg["n_layer"])
        )
        self.ln_f = nn.LayerNorm(width)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


def gpt(folder):
    from safetensors.torch import load_file

    with open(os.path.join(folder, "config.json")) as f:
        model = GPT(json.load(f))
    names = {
        "attn.c_attn": "c_attn",
        "attn.c_proj": "c_proj",
        "mlp.c_fc": "c_fc",
        "mlp.c_proj": "c_out",
    }
    tensors = {}
    for key, value in load_file(os.path.join(folder, "model.safetensors")).items():
        key = key.removeprefix("transformer.")
        for theirs, name in names.items():
            if f".{theirs}." in key:  # GPT-2 keeps its matrices as (in, out)
                key, value = key.replace(theirs, name), value.T if value.ndim == 2 else value
        tensors[key] = value.contiguous()
    model.load_state_dict({k: v for k, v in tensors.items() if k != "lm_head.weight"})
    return model


def hugging_face(folder, experts):
    import transformers

    transformers.logging.set_verbosity_error()
    config = transformers.AutoConfig.from_pretrained(folder)
    config.use_cache = False
    if experts:
        config._experts_implementation = experts
    held = transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, attn_implementation="sdpa", dtype=torch.float32
    )

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.held = held

        def forward(self, tokens):
            return self.held(input_ids=tokens, use_cache=False).logits

    return Logits()


class Trainer:
    def __init__(self, a):
        torch.set_num_threads(a.threads or torch.get_num_threads())
        self.batches = np.load(a.batches, mmap_mode="r", allow_pickle=False)
        self.context, self.done = a.context or self.batches.shape[2] - 1, 0
        model = gpt(a.weights) if a.kind == "gpt" else hugging_face(a.weights, a.experts)
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=a.lr,
            betas=(0.9, 0.95),
            eps=1e-8,
            weight_decay=a.decay,
            fused=True,
        )

        def loss(x, y):
            return functional.cross_entropy(model(x).flatten(0, 1), y.flatten())

        self.loss = torch.compile(loss, dynamic=False) if a.compile else loss

    def step(self) -> float:
        tokens = torch.from_numpy(self.batches[self.done % len(self.batches)].astype(np.int64))
        loss = self.loss(tokens[:, : self.context], tokens[:, 1 : self.context + 1])
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return loss.item()

    @property
    def tokens(self) -> int:
        return self.batches.shape[1] * self.context


def decode(model, tokens, count):
    """(seconds of the prefill, of `count` greedy tokens) with transformers' own cache."""
    with torch.inference_mode():
        started = time.perf_counter()
        out = model(input_ids=tokens, use_cache=True)
        last = out.logits[:, -1:].argmax(-1)
        filled = time.perf_counter()
        for _ in range(count):
            out = model(input_ids=last, past_key_values=out.past_key_values, use_cache=True)
            last = out.logits.argmax(-1)
        return filled - started, time.perf_counter() - filled


def answer_decoding(a, say):
    model = hugging_face(a.weights, a.experts).held.eval()
    tokens = torch.from_numpy(np.load(a.batches, allow_pickle=False)[0].astype(np.int64))
    decode(model, tokens, 2)
    say({"ready": True})
    for _ in sys.stdin:
        cpu = time.process_time()
        filled, decoded = decode(model, tokens, a.steps)
        figures = {
            "tokens": tokens.shape[0] * a.steps,
            "wall_s": decoded,
            "cpu_s": time.process_time() - cpu,
        }
        say({**figures, "prefill_tokens_per_s": tokens.numel() / filled, "peak_bytes": peak()})


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--kind", choices=("gpt", "hf"), required=True)
    p.add_argument("--weights", required=True)
    p.add_argument("--batches", required=True)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--experts", default="")
    p.add_argument("--context", type=int, default=0)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--lr", type=float, default=3e-4)
    p.add_argument("--decay", type=float, default=0.1)
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--losses", type=int, default=0)
    p.add_argument("--decode", action="store_true")
    a = p.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(answer):
        return answers.write(json.dumps(answer) + "\n")

    if a.decode:
        return answer_decoding(a, say)
    trainer = Trainer(a)
    if a.losses:
        return say({"losses": [trainer.step() for _ in range(a.losses)]})
    trainer.step()
    say({"ready": True})
    for _ in sys.stdin:
        trainer.step()  # brings back what a pause has taken away
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(a.steps):
            trainer.step()
        say(
            {
                "tokens": a.steps * trainer.tokens,
                "wall_s": time.perf_counter() - wall,
                "cpu_s": time.process_time() - cpu,
                "peak_bytes": peak(),
            }
        )


if __name__ == "__main__":
    main()
