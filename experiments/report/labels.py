"""Names of arms for people."""

LABEL = {
    "dense": "dense",
    "moe": "mixture of experts",
    "moe_8_1": "8 experts, top-1",
    "moe_32_4": "32 experts, top-4",
    "moe_64_8": "64 experts, top-8",
}
