"""The run after a sweep, at 1e+13 FLOPs (matmul), by isoflop next.

Predicted on 2026-11-28T14:42:45+00:00: loss 1.3984 [1.2838, 1.5200] nats/token. The prediction
c07b2ca430da.json stands beside this file and must not change: the run's record keeps its hash.
"""

import os

from launch import config

RUN = {
    "version": 2,
    "model": {"pattern": "attention/moe"},
    "data": {"content": "a7b5a6b93d9db9f5/bytes", "order": 2},
    "optimizer": {"lr": 0.005, "embed_lr": 0.02},
    "horizon": {"steps": 43847},
    "batch": 2,
    "dtype": "float32",
}
WHERE = {}
PREDICTION = os.path.join(os.path.dirname(os.path.abspath(__file__)), "c07b2ca430da.json")


def recipe():
    where = config.from_dict(config.Where, {**WHERE, "prediction": PREDICTION})
    return config.Job(config.from_dict(config.Run, RUN), where)
