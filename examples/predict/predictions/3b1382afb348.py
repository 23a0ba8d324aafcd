"""The run after a sweep, at 1e+13 FLOPs (matmul), by isoflop next.

Predicted on 2026-11-28T14:42:40+00:00: loss 1.5203 [1.4273, 1.6124] nats/token. The prediction
3b1382afb348.json stands beside this file and must not change: the run's record keeps its hash.
"""

import os

from launch import config

RUN = {
    "version": 2,
    "data": {"content": "a7b5a6b93d9db9f5/bytes", "order": 2},
    "optimizer": {"lr": 0.005, "embed_lr": 0.02},
    "horizon": {"steps": 44152},
    "batch": 2,
    "dtype": "float32",
}
WHERE = {}
PREDICTION = os.path.join(os.path.dirname(os.path.abspath(__file__)), "3b1382afb348.json")


def recipe():
    where = config.from_dict(config.Where, {**WHERE, "prediction": PREDICTION})
    return config.Job(config.from_dict(config.Run, RUN), where)
