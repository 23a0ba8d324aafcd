"""Every recipe as it ships, end to end: sweep, fit, report, status; train and sample of single
runs. At a size that keeps its structure: seeds, budgets, arms and rates are the recipe's own.

pytest -m slow tests/verbs/test_recipes.py -n 0
"""

import json
import os
import re
import subprocess
import sys

import pytest

from experiments import recipes
from experiments.planning import grid
from experiments.planning.grid import SweepJob
from tests.conftest import ROOT

SMALL = ["--set=data.validation_windows=8", "--set=where.tensorboard=false"]
SIZES = {1: "16", 2: "16,24", 3: "16,24,32", 4: "16,24,32,48", 5: "8,16,24,32,48"}


def run(*argv, cwd):
    env = {**os.environ, "PYTHONPATH": ROOT, "XLA_FLAGS": ""}
    env.pop("ISOFLOP_STRICT", None)  # as a user has it
    done = subprocess.run(
        [sys.executable, "-m", "experiments.start", *argv],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=3600,  # a busy machine is no fault of a recipe's
    )
    assert done.returncode == 0, f"{argv}: {done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr and "could not be made" not in done.stdout
    return done.stdout


def shrunk(job: SweepJob) -> list[str]:
    """Flags that make every run of a sweep short; as many sizes, budgets, arms, seeds and rates."""
    small = max(job.sweep.sizes) < 32  # as it ships: no run would have steps enough
    s, factor = job.sweep, 1 / 10 if small else 1 / 40
    out = [] if small else [f"--set=sweep.sizes={SIZES[len(s.sizes)]}"]
    if s.budgets:
        out.append("--set=sweep.budgets=" + ",".join(f"{b * factor:g}" for b in s.budgets))
    if s.tokens:
        # as many as the largest needs for steps enough, where a batch is large
        least = 2 * grid.MIN_STEPS * job.run.batch * job.run.model.seq_len
        share = max(factor, least / max(s.tokens))
        out.append("--set=sweep.tokens=" + ",".join(f"{int(t * share)}" for t in s.tokens))
    for name, arm in s.arms:
        if found := re.search(r"warmup_tokens=(\d+)", arm):
            own = arm.replace(found[0], f"warmup_tokens={int(int(found[1]) * factor)}")
            out.append(f"--set=sweep.arms.{name}={own}")
    if job.run.schedule.warmup_tokens:
        out.append(f"--set=schedule.warmup_tokens={int(job.run.schedule.warmup_tokens * factor)}")
    if s.replicate_budget:
        out.append(f"--set=sweep.replicate_budget={s.replicate_budget * factor:g}")
        if not small:
            out.append("--set=sweep.replicate_size=24")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipe_end_to_end(name, tmp_path):
    job = recipes.load(name)
    if not isinstance(job, SweepJob):
        run(
            "train",
            f"--config={name}",
            "--workdir=r",
            "--set=horizon.steps=30",
            *SMALL,
            cwd=tmp_path,
        )
        assert run("sample", "--run=r", "--prompt=def ", "--tokens=5", cwd=tmp_path)
        assert "total" in run("count", f"--config={name}", cwd=tmp_path)
        return
    flags = [f"--config={name}", *shrunk(job), *SMALL]
    assert run("plan", *flags, cwd=tmp_path)
    out = run("sweep", *flags, "--workdir=w", "--bootstrap=50", cwd=tmp_path)
    assert "report:" in out
    a = json.loads((tmp_path / "w" / "analysis.json").read_text())
    assert {f for f in a["families"]} == set(job.sweep.families)
    runs = [json.loads(p.read_text()) for p in (tmp_path / "w" / "runs").glob("*/result.json")]
    assert runs and {r["status"] for r in runs} == {"finished"}
    assert run("fit", "--workdir=w", "--bootstrap=50", cwd=tmp_path)
    assert run("report", "--workdir=w", "--out=elsewhere", "--bootstrap=50", cwd=tmp_path)
    assert (tmp_path / "elsewhere" / "report.html").exists()
    status = json.loads(run("status", "w", "--format=json", cwd=tmp_path))
    assert status
