"""What a run of a pack is told that it took: its share, over sittings and forks."""

import dataclasses

from launch import config
from launch.runs import meter, pack, record, trunk
from model import optim
from tests.launch.test_packs import ALONE, runs


def test_a_share_is_of_each_sitting(monkeypatch):
    """A run that was one of four for 8 s, and then alone for 3 s, took 5 s."""
    now = [0.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(meter.time, "process_time", lambda: 2 * now[0])
    first = meter.Clock()
    first.share, now[0] = 4.0, 8.0
    kept = first.state("train")
    again = meter.Clock()
    again.go_on(kept)
    now[0] = 11.0
    again.lap("train")
    assert again.wall == {"train": 5.0} and again.cpu == {"train": 10.0}


def test_a_pack_that_begins_at_forks_counts_its_share(tmp_path):
    """Seconds after the fork are those of the run alone, and positive."""
    s = optim.Schedule("wsd", warmup_steps=3)
    bases = [dataclasses.replace(r, schedule=s, dtype="float32") for r in runs("dense", 2, 20)]

    def of(steps):
        return [dataclasses.replace(r, horizon=config.Horizon(steps=steps)) for r in bases]

    where = dataclasses.replace(ALONE, members=2)
    chains = {config.run_id(r): c for b in zip(of(10), of(20)) for r, c in zip(b, trunk.chains(b))}
    for steps in (10, 20):
        orders = iter(
            pack.Order(r, str(tmp_path / config.run_id(r)), {}, chains[config.run_id(r)])
            for r in of(steps)
        )
        told: list[pack.Told] = []
        pack.train(where, lambda orders=orders: next(orders, None), told.append)
    for t in told:
        kept = record.result(t.order.folder)
        here = kept["shared"]["here"]["seconds"]
        assert kept["shared"]["step"] == 8 and 0 < here < kept["seconds"]["train"]
