"""Shares are exact, every window of a source comes once before any comes twice, and what is read
depends on (seed, step) alone.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import mixture, pipeline
from data.config import Data, DataError


@st.composite
def mixtures(draw):
    n = draw(st.integers(1, 6))
    cuts = sorted(draw(st.lists(st.integers(0, 1000), min_size=n - 1, max_size=n - 1)))
    counts = np.diff([0, *cuts, 1000])
    return mixture.Mixture(tuple(f"s{k}" for k in range(n)), counts)


@settings(deadline=None, max_examples=60)
@given(mixtures(), st.integers(0, 10**12), st.integers(1, 5000))
def test_shares_of_any_thousand_windows_are_exact(m, start, length):
    source, own = m.place(np.arange(start, start + 1000))
    np.testing.assert_array_equal(np.bincount(source, minlength=len(m.names)), m.counts)
    source, _ = m.place(np.arange(start, start + length))
    seen = np.bincount(source, minlength=len(m.names))
    assert np.abs(seen - m.counts * length / 1000).max() < len(m.names)  # evenly spread within it
    np.testing.assert_array_equal(m.taken(start + length) - m.taken(start), seen)


@settings(deadline=None, max_examples=60)
@given(mixtures(), st.integers(0, 10**9))
def test_windows_of_a_source_are_counted_without_a_gap(m, start):
    source, own = m.place(np.arange(start, start + 3000))
    before = m.taken(start)
    for k in range(len(m.names)):
        here = own[source == k]
        np.testing.assert_array_equal(here, before[k] + np.arange(len(here)))


NAMES = ("code", "books", "web")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three sources whose texts are told apart by their letters."""
    folder = tmp_path_factory.mktemp("mixture")
    for letter, n in zip("abc", (9000, 4000, 2000)):
        (folder / f"{letter}.txt").write_text((letter * 30 + "\n") * (n // 31))
    parts = (f"{n}=text(path='{folder}/{x}.txt')" for n, x in zip(NAMES, "abc"))
    return Data(
        sources=", ".join(parts),
        mixture="code=0.5,books=0.3,web=0.2",
        validation_windows=9,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def sources_of(tokens) -> np.ndarray:
    """The place in NAMES of each window, by its most frequent letter."""
    return np.array([np.bincount(t).argmax() for t in tokens]) - ord("a")


def test_a_batch_holds_what_the_pattern_says(data, cache):
    ds = pipeline.load(data, 16, cache)
    tokens, sizes = ds.counted_batch(0, 1000)
    seen = sources_of(tokens)
    np.testing.assert_array_equal(np.bincount(seen), [500, 300, 200])
    np.testing.assert_array_equal(
        ds.by_source(0, 1000, sizes), [sizes[seen == k].sum() for k in range(3)]
    )
    held = ds.validation()
    np.testing.assert_array_equal(sources_of(held), ds.validation_sources())
    np.testing.assert_array_equal(np.bincount(ds.validation_sources()), [3, 3, 3])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3000), st.integers(1, 12), st.data())
def test_rows_and_steps_are_addressed(data, cache, step, batch, draw):
    """Whatever the batch size, the split over hosts and the step that one begins at."""
    ds = pipeline.load(data, 16, cache)
    whole = ds.batch(step, batch)
    rows = sorted(draw.draw(st.sets(st.integers(0, batch - 1), min_size=1)))
    np.testing.assert_array_equal(ds.batch(step, batch, np.array(rows)), whole[rows])
    singles = [ds.batch(step * batch + i, 1)[0] for i in range(batch)]
    np.testing.assert_array_equal(np.stack(singles), whole)


def test_no_window_twice_before_all_once(data, cache):
    ds = pipeline.load(data, 16, cache)
    windows = [p.count for p in ds._parts]
    for k, n in enumerate(windows):
        read = ds._parts[k].training(np.arange(3 * n)).reshape(3, n)
        assert all(sorted(epoch) == list(range(n)) for epoch in read)
        assert not np.array_equal(read[0], read[1])
    assert ds.source_epochs(1000 * windows[2]) == pytest.approx(
        [share * 1000 * windows[2] / n for share, n in zip((0.5, 0.3, 0.2), windows)]
    )
    assert ds.source_windows(1000) == [500, 300, 200]


def test_weights_may_be_zero_and_validation_stays_the_same(data, cache):
    """Losses of mixtures are compared on the same windows."""
    one = dataclasses.replace(data, mixture="code=1,books=0")
    a, b = (pipeline.load(d, 16, cache) for d in (data, one))
    np.testing.assert_array_equal(a.validation(), b.validation())
    assert set(sources_of(b.batch(0, 200))) == {0}
    assert pipeline.content(a) == pipeline.content(b) and "books:" in pipeline.content(a)


BAD = {
    "code=0.5,books=0.3": "sum to 0.8, not 1",
    "code=0.5,books=0.3,news=0.2": "names 'news', data.sources has code, books, web",
    "code=0.3333,books=0.6667": "thousandths",
    "code=half,books=0.5": "write 'code=half' as NAME=SHARE",
    "code=1.5,books=-0.5": "must lie in 0 .. 1",
    "code=0.5,code=0.5": "has code twice",
    "code=0,code=0.5,books=0.5": "has code twice",
}


@pytest.mark.parametrize("weights", BAD)
def test_bad_weights_are_one_line(data, cache, weights):
    with pytest.raises(DataError, match=BAD[weights]):
        pipeline.load(dataclasses.replace(data, mixture=weights), 16, cache)


@pytest.mark.parametrize(
    "change,words",
    [
        ({"mixture": ""}, "go together"),
        ({"path": "x.txt"}, "data.path does not belong"),
        ({"sources": "a=python_source, a=text", "mixture": "a=1"}, "has a twice"),
        ({"sources": "python_source", "mixture": "a=1"}, "as NAME=SOURCE"),
        ({"sources": "a=synthetic", "mixture": "a=1"}, "cannot be mixed"),
        ({"sources": "a=text(path=x,path=y)", "mixture": "a=1"}, "has path twice"),
        ({"unique_tokens": -1}, "cannot be negative"),
        ({"documents": "apar"}, "choose joined or apart"),
    ],
)
def test_bad_sources_are_one_line(data, cache, change, words):
    with pytest.raises(DataError, match=words):
        pipeline.load(dataclasses.replace(data, **change), 16, cache)


def test_unique_tokens_are_a_fixed_subset(data, cache):
    """The same for every seed, repeated whole; that of fewer tokens is part of that of more."""
    own = mixture.sources(data)["code"]
    texts = {}
    for unique in (160, 320):
        for seed in (0, 1):
            d = dataclasses.replace(own, unique_tokens=unique, seed=seed)
            ds = pipeline.load(d, 16, cache)
            n = unique // 16
            at = ds._parts[0].training(np.arange(2 * n)).reshape(2, n)
            assert sorted(at[0]) == sorted(at[1]) and len(set(at[0])) == n
            texts.setdefault(unique, sorted(at[0]))
            assert texts[unique] == sorted(at[0])
            assert ds.dataset_tokens == unique and ds.epochs(4 * n) == 4
    assert set(texts[160]) < set(texts[320])
    for unique in (15, 10**6):
        with pytest.raises(DataError, match="give 16 to"):
            pipeline.load(dataclasses.replace(own, unique_tokens=unique), 16, cache)


def test_unique_tokens_of_a_mixture_go_by_share(data, cache):
    ds = pipeline.load(dataclasses.replace(data, unique_tokens=1600), 16, cache)
    assert ds.source_tokens() == [800, 480, 320]
    assert ds.source_epochs(200) == [2, 2, 2]
    with pytest.raises(DataError, match="asks for 1 tokens"):  # not all of it
        pipeline.load(dataclasses.replace(data, unique_tokens=2), 16, cache)
    few = dataclasses.replace(data, unique_tokens=1600, mixture="code=0.999,books=0.001,web=0")
    with pytest.raises(DataError, match="asks for 2 tokens"):
        pipeline.load(few, 16, cache)
