"""What the compiler says of a training step: its own figures, beside the ones that we count."""

import functools

import jax
import numpy as np
from flax import linen as nn

from model import optim, step
from model.config import Execution, Model
from model.lm import LM, abstract


def figures(c: Model, ex: Execution, batch: int) -> dict:
    """Compiles for one device of this process, from shapes alone: no array is made.

    Bytes of `forward_backward` (parameters in, gradients out; `temporaries` are the activations) and of a whole `step` (state donated);
    `flops` of the former by XLA's cost analysis, elementwise work included, None for scanned layers, whose body it counts once."""
    lm, optimizer = LM(c, ex), optim.Optimizer()
    state = jax.eval_shape(lambda p: step.create(lm, optimizer, nn.unbox(p)), abstract(c, ex))
    tokens = jax.ShapeDtypeStruct((batch, c.seq_len + 1), np.int32)
    hyper = {k: jax.ShapeDtypeStruct((), np.float32) for k in ("lr", "embed_lr", "weight_decay")}
    passes = jax.jit(functools.partial(step.gradients, lm)).lower(state, tokens).compile()
    whole = jax.jit(functools.partial(step.train_step, lm, optimizer), donate_argnums=0).lower(state, tokens, hyper).compile()
    return {
        "device": jax.devices()[0].device_kind,
        "compiler": f"XLA of jax {jax.__version__}",
        "forward_backward": _bytes(passes),
        "step": _bytes(whole),
        "flops": None if ex.scan else passes.cost_analysis()["flops"],
    }


def _bytes(program) -> dict[str, int]:
    m = program.memory_analysis()
    sizes = {"arguments": m.argument_size_in_bytes, "outputs": m.output_size_in_bytes, "donated": m.alias_size_in_bytes}
    total = sum(sizes.values()) - 2 * m.alias_size_in_bytes + m.temp_size_in_bytes
    return {**sizes, "temporaries": m.temp_size_in_bytes, "total": total}
