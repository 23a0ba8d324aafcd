"""The families of Hugging Face that are read and written, by `model_type`.

A family is added in five steps:

1. `read(cfg) -> Model`: parts with the numbers of config.json; an option that no part computes is
   refused by `cfg.refuse`, or named in `fixed` if it must have one value.
2. `write(m) -> dict`: the way back, out of the parts (`family.one`, `family.held`, `m.layers`).
3. Names of its tensors: `part_tensors.Names`, with a function for each type of part; new functions
   stand beside the family until a second one needs them.
4. `Family(architecture, read, write, tensors, defaults, fixed)` and one line in FAMILIES. Export
   takes the first family that reads the model out of what it writes, so the plainer stands first.
5. A tiny configuration in tests/launch/transformers_models.py: the parity tests hold for all.

A behaviour that no part has is a field of the part, with counts and contracts, not a case here.
"""

from launch.huggingface.families import (
    deepseeks,
    gpts,
    griffins,
    hybrids,
    llamas,
    mambas,
    mixtures,
    qwen3_nexts,
    rwkvs,
)

FAMILIES = {
    "gpt2": gpts.GPT2,
    "opt": gpts.OPT,
    "xglm": gpts.XGLM,
    "bloom": gpts.BLOOM,
    "llama": llamas.LLAMA,
    "mistral": llamas.MISTRAL,
    "qwen3": llamas.QWEN3,
    "mixtral": mixtures.MIXTRAL,
    "olmoe": mixtures.OLMOE,
    "qwen3_moe": mixtures.QWEN3_MOE,
    "deepseek_v3": deepseeks.DEEPSEEK_V3,
    "mamba": mambas.MAMBA,
    "falcon_mamba": mambas.FALCON_MAMBA,
    "mamba2": mambas.MAMBA2,
    "rwkv": rwkvs.RWKV,
    "jamba": hybrids.JAMBA,
    "bamba": hybrids.BAMBA,
    "recurrent_gemma": griffins.RECURRENT_GEMMA,
    "qwen3_next": qwen3_nexts.QWEN3_NEXT,
}
# families that are not read, and why
REFUSED = {
    "reformer": "its chunks of sorted tokens move with what comes later, and its residual stream is"
    " two; mixer reformer sees the last tokens of a bucket instead",
    "big_bird": "its blocks see tokens that come later, and its causal form is full attention with"
    " a head of several layers; mixer sparse has causal blocks",
}
