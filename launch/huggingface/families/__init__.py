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
    falcons,
    gemmas,
    gpts,
    granites,
    griffins,
    hybrids,
    large_mixtures,
    llamas,
    mambas,
    mixtures,
    neoxes,
    olmos,
    qwen2s,
    qwen3_nexts,
    rwkvs,
    small_ones,
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
    "deepseek_v2": deepseeks.DEEPSEEK_V2,
    "gpt_neox": neoxes.GPT_NEOX,
    "stablelm": neoxes.STABLELM,
    "starcoder2": neoxes.STARCODER2,
    "cohere": neoxes.COHERE,
    "falcon": falcons.FALCON,
    "olmo2": olmos.OLMO2,
    "olmo3": olmos.OLMO3,
    "qwen2": qwen2s.QWEN2,
    "qwen2_moe": qwen2s.QWEN2_MOE,
    "gemma": gemmas.GEMMA,
    "gemma2": gemmas.GEMMA2,
    "gemma3_text": gemmas.GEMMA3,
    "smollm3": small_ones.SMOLLM3,
    "phi3": small_ones.PHI3,
    "granite": granites.GRANITE,
    "granitemoe": granites.GRANITEMOE,
    "gpt_oss": large_mixtures.GPT_OSS,
    "glm4_moe": large_mixtures.GLM4_MOE,
    "dbrx": large_mixtures.DBRX,
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
