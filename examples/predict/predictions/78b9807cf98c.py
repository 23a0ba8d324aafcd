"""The run after a sweep, at 3e+12 FLOPs (matmul), by isoflop next.

Predicted on 2026-11-28T14:42:31+00:00: loss 1.5852 [1.5039, 1.6667] nats/token. The prediction
78b9807cf98c.json stands beside this file and must not change: the run's record keeps its hash.
"""

import os

from launch import config

RUN = {
    "version": 2,
    "model": {"pattern": "attention(n_heads=3)/dense", "d_model": 48},
    "data": {"content": "a7b5a6b93d9db9f5/bytes", "order": 2},
    "optimizer": {"lr": 0.006666666666666666, "embed_lr": 0.02},
    "horizon": {"steps": 21193},
    "batch": 2,
    "dtype": "float32",
}
WHERE = {}
PREDICTION = os.path.join(os.path.dirname(os.path.abspath(__file__)), "78b9807cf98c.json")


def recipe():
    where = config.from_dict(config.Where, {**WHERE, "prediction": PREDICTION})
    return config.Job(config.from_dict(config.Run, RUN), where)
