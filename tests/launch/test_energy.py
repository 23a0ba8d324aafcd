"""Energy of the boards through a stand-in for NVML."""

import sys
import types

import pytest

from launch.devices import energy
from launch.runs import train
from tests.launch.test_launch import ALONE, BASE


class Nvml(types.ModuleType):
    """Two boards that use 100 and 50 J between two readings."""

    def __init__(self, works=True):
        super().__init__("pynvml")
        self.used, self.works = {0: 1000.0, 1: 0.0, "GPU-x": 7.0}, works

    def nvmlInit(self):
        if not self.works:
            raise RuntimeError("driver not loaded")

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, i):
        return i

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid.decode()

    def nvmlDeviceGetTotalEnergyConsumption(self, h):
        self.used[h] += {0: 100.0, 1: 50.0, "GPU-x": 5.0}[h]
        return int(self.used[h] * 1e3)


@pytest.fixture
def nvml(monkeypatch):
    def install(**kw):
        energy._boards.cache_clear()
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setitem(sys.modules, "pynvml", Nvml(**kw))

    yield install
    energy._boards.cache_clear()


def test_joules_are_counted_and_labelled_measured(nvml, monkeypatch):
    nvml()
    gauge = energy.Gauge(2)
    assert gauge.total() == 150.0
    assert gauge.record() == {
        "joules": 300.0,
        "source": "measured by NVML, whole boards, 2 devices",
    }
    assert energy.Gauge(1, before=40.0).total() == 140.0  # of an earlier sitting
    assert energy.Gauge(1, before=None).total() is None  # whose energy nobody knows
    energy._boards.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-x,0")
    assert energy.Gauge(1).total() == 5.0


def test_without_nvml_nothing_is_claimed(nvml, monkeypatch):
    nvml(works=False)
    assert energy.Gauge(1).record() is None
    energy._boards.cache_clear()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.Gauge(1).record() is None


@pytest.mark.parametrize("works", [True, False])
def test_a_result_says_what_was_measured(works, nvml, tmp_path):
    nvml(works=works)
    r = train.train(BASE, ALONE, str(tmp_path / "r"))
    assert (r["energy"] is None) != works
    if works:
        assert r["energy"]["joules"] > 0 and r["energy"]["source"].startswith("measured by NVML")
    assert 0 < r["cpu_seconds"]["train"] and set(r["cpu_seconds"]) == {
        "setup",
        "restore",
        "train",
        "evaluate",
    }
