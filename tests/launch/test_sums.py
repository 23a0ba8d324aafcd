"""Loss by position in the window: sums of losses that pass are those of all at once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import pipeline
from data.config import Data
from launch.config import Horizon, Run, Where
from launch.runs import record, train, valid
from launch.runs.sums import BINS, Sums, bins
from model import parts


@given(st.integers(1, 5000))
def test_bins_are_of_all_positions_and_as_many_as_there_can_be(seq_len):
    first = bins(seq_len)
    assert len(first) == min(BINS, seq_len) and first[0] == 1 and first[-1] <= seq_len
    widths = np.diff([*first, seq_len + 1])
    assert (widths >= 1).all() and (np.diff(widths) >= -1).all()
    if seq_len >= 1000:  # a constant ratio, once bins are wider than a position
        ratios = first[20:] / first[19:-1]
        assert ratios.max() / ratios.min() < 1.15


@given(
    st.integers(1, 40),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(0, 2**31 - 1),
)
def test_sums_are_those_of_all_losses_at_once(seq_len, batches, seed):
    rng = np.random.default_rng(seed)
    nll = [rng.exponential(2.0, (n, seq_len)) for n in batches]
    sums, every = Sums(seq_len), np.concatenate(nll)
    for batch in nll:
        sums.add(batch)
    close = {"rel": 1e-9, "abs": 1e-12}
    assert sums.mean == pytest.approx(every.mean(), **close) and sums.tokens == every.size
    np.testing.assert_allclose(sums.windows, every.sum(1))
    if every.size > 1:
        assert sums.se() == pytest.approx(every.std(ddof=1) / math.sqrt(every.size), abs=1e-7)
    assert math.isnan(sums.se_windows()) == (len(every) == 1)
    rows = sums.by_position()
    whole = np.dot(rows["tokens"], rows["loss"]) / sum(rows["tokens"])
    assert whole == pytest.approx(sums.mean, **close) and sum(rows["tokens"]) == every.size
    for k, (first, end) in enumerate(zip(rows["first"], [*rows["first"][1:], seq_len + 1])):
        own = every[:, first - 1 : end - 1]
        assert rows["loss"][k] == pytest.approx(own.mean(), **close)
        if len(every) > 1:
            means = own.mean(1)
            se = means.std(ddof=1) / math.sqrt(len(means))
            assert rows["se"][k] == pytest.approx(se, abs=1e-7)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_record_of_a_run_has_them(mixed, tmp_path):
    """Weighted by their tokens the bins are the validation loss, of one source and of two."""
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name}bcdefg hijk\n" * 900)
    data = Data(source="text", path=str(tmp_path / "a.txt"), validation_windows=10)
    if mixed:
        sources = f"a=text(path='{tmp_path}/a.txt'), b=text(path='{tmp_path}/b.txt')"
        data = Data(sources=sources, mixture="a=0.5,b=0.5", validation_windows=10)
    run = Run(
        model=parts.model(d_model=8, n_layers=1, seq_len=48),
        data=data,
        horizon=Horizon(steps=2),
        batch=4,
    )
    where = Where(cache=str(tmp_path / "cache"), tensorboard=False, keep_final=False, mesh="data=1")
    r = train.train(run, where, str(tmp_path / "r"))
    rows, v = r["loss_by_position"], r["validation"]
    assert rows["first"] == bins(48).tolist() and len(rows["first"]) == BINS
    assert sum(rows["tokens"]) == v["tokens"] == 10 * 48
    assert np.dot(rows["tokens"], rows["loss"]) / v["tokens"] == pytest.approx(v["loss"], rel=1e-12)
    assert all(x > 0 for x in rows["se"])
    if mixed:
        each = [s["validation"]["loss"] for s in r["sources"].values()]
        assert np.mean(each) == pytest.approx(v["loss"])
    assert record.result(str(tmp_path / "r"))["loss_by_position"] == rows


def test_the_excess_over_a_known_source_is_what_it_was(tmp_path):
    """The loss minus the source's own -log p of the same tokens."""
    model = parts.model(d_model=8, n_layers=1, seq_len=30, vocab_size=320)
    data = Data(source="synthetic", validation_windows=6)
    run = Run(model=model, data=data, horizon=Horizon(steps=2), batch=2)
    where = Where(cache=str(tmp_path / "cache"), tensorboard=False, keep_final=False, mesh="data=1")
    v = train.train(run, where, str(tmp_path / "r"))["validation"]
    dataset = pipeline.load(data, 30)
    true = dataset.true_nll(dataset.validation())
    assert v["excess"] == pytest.approx(v["loss"] - true.mean(), rel=1e-9) and v["excess_se"] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": [1], "tokens": [3], "loss": [2.0]},
        {"first": [1, 2], "tokens": [3], "loss": [2.0], "se": [None]},
        {"first": ["1"], "tokens": [3], "loss": [2.0], "se": [None]},
        [],
    ],
)
def test_a_wrong_table_is_named(wrong):
    assert "loss_by_position" in valid.flaw({"loss_by_position": wrong}, TABLE)


TABLE = {"loss_by_position?": valid.RESULT["loss_by_position?"]}
