"""The run after a sweep, at 1e+12 FLOPs (matmul), by isoflop next.

Predicted on 2026-11-28T14:42:25+00:00: loss 1.6100 [1.5175, 1.7038] nats/token. The prediction
47a1542cabb2.json stands beside this file and must not change: the run's record keeps its hash.
"""

import os

from launch import config

RUN = {
    "version": 2,
    "model": {"pattern": "attention(n_heads=2)/moe", "d_model": 32},
    "data": {"content": "a7b5a6b93d9db9f5/bytes", "order": 2},
    "optimizer": {"lr": 0.01, "embed_lr": 0.02},
    "horizon": {"steps": 13109},
    "batch": 2,
    "dtype": "float32",
}
WHERE = {}
PREDICTION = os.path.join(os.path.dirname(os.path.abspath(__file__)), "47a1542cabb2.json")


def recipe():
    where = config.from_dict(config.Where, {**WHERE, "prediction": PREDICTION})
    return config.Job(config.from_dict(config.Run, RUN), where)
