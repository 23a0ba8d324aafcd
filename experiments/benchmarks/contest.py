"""A contest: every contender is a process of its own that waits its turn, so that one machine
serves them in alternation, round by round, and nobody pays for another's imports. One JSON object a
line: a contender says {"ready": true} once its first step is done, answers every "go" with one
stretch {"tokens", "wall_s", "cpu_s", "loss", "peak_bytes"}, and ends when its stdin closes.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import tempfile
import time

from experiments.cli import UserError
from launch.devices import child_process

# a thread that waits for work sleeps, or its CPU-seconds say nothing on a shared machine
QUIET = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}


def need_torch(names) -> None:
    """Raises UserError where a contender wants a package of the extra `bench` that is not
    installed. Imports none.
    """
    missing = [m for m in ("torch", "transformers") if importlib.util.find_spec(m) is None]
    if missing and names:
        raise UserError(
            f"contender {names[0]} needs {' and '.join(missing)}: pip install -e '.[bench]', or"
            " name others by --contender"
        )


class Contender:
    """A started process, and what it has said."""

    def __init__(self, name: str, argv: list[str], more: dict | None = None):
        self.name, self.stretches, started = name, [], time.perf_counter()
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            child_process.command(*argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**child_process.environment(), **QUIET, **(more or {})},
        )
        self.ready = self._answer()
        self.first_step_s = time.perf_counter() - started

    def _answer(self) -> dict:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        said = [line for line in self._errors.read().splitlines() if line.strip()]
        self.close()
        raise UserError(
            f"contender {self.name} ended:"
            f" {said[-1] if said else f'status {self._process.returncode}'}"
        )

    def stretch(self) -> None:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.stretches.append(self._answer())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def figures(self) -> dict:
        """Medians over the stretches."""

        def of(k):
            return [s[k] for s in self.stretches]

        return {
            "tokens_per_s": statistics.median(s["tokens"] / s["wall_s"] for s in self.stretches),
            "tokens_per_cpu_s": statistics.median(s["tokens"] / s["cpu_s"] for s in self.stretches),
            "first_step_s": self.first_step_s,
            "peak_bytes": max(of("peak_bytes")),
            **(
                {"prefill": of("prefill_tokens_per_s")}
                if "prefill_tokens_per_s" in self.stretches[0]
                else {}
            ),
            "rounds": [{k: s[k] for k in ("tokens", "wall_s", "cpu_s")} for s in self.stretches],
        }


def run(commands: dict[str, tuple[list[str], dict]], rounds: int) -> dict[str, dict]:
    """Figures of every contender; `commands` holds the arguments of Python and the environment of
    each.
    """
    with contextlib.ExitStack() as held:
        started = [
            held.enter_context(contextlib.closing(Contender(name, *command)))
            for name, command in commands.items()
        ]
        for i in range(rounds):
            for c in started if i % 2 == 0 else started[::-1]:
                c.stretch()
        return {c.name: c.figures() for c in started}


def ratios(contenders: dict[str, dict]) -> dict[str, float]:
    """Of the first contender over each other one: the median over rounds of the ratio of tokens per
    CPU-second.
    """
    (_, ours), *others = contenders.items()

    def rate(r):
        return r["tokens"] / r["cpu_s"]

    return {
        name: statistics.median(rate(a) / rate(b) for a, b in zip(ours["rounds"], c["rounds"]))
        for name, c in others
    }


def machine() -> dict:
    """What a figure depends on."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:
        names = [line.partition(":")[2].strip() for line in f if line.startswith("model name")]
    from launch.runs import record

    found = [m for m in ("torch", "transformers") if importlib.util.find_spec(m)]
    versions = {**record.versions(), **{m: importlib.metadata.version(m) for m in found}}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": f"{len(names)} x {names[0]}" if names else "",
        "load": os.getloadavg()[0],
        "versions": versions,
    }


def text(answer: dict) -> str:
    """The table of a contest."""
    m = answer["machine"]
    versions = ", ".join(
        f"{k} {v}" for k, v in m["versions"].items() if k in ("jax", "torch", "transformers")
    )
    lines = [answer["what"], f"{m['date']}, {m['cpu']}, load {m['load']:.1f}; {versions}", ""]
    lines.append(
        f"  {'contender':<22}{'tokens/s':>12}{'per CPU-s':>12}{'first step':>12}{'peak':>10}{'ratio':>8}"  # noqa: E501
    )

    def cell(v, form):
        return "-" if v is None else format(v, form)

    for name, c in answer["contenders"].items():
        ratio = answer.get("ratios", {}).get(name)
        lines.append(
            f"  {name:<22}{cell(c['tokens_per_s'], ',.0f'):>12}{cell(c['tokens_per_cpu_s'], ',.0f'):>12}{cell(c['first_step_s'], '.2f'):>10}"  # noqa: E501
            f" s{cell(c['peak_bytes'] and c['peak_bytes'] / 2**20, ',.0f'):>6}"
            f" MiB{cell(ratio, '.2f'):>8}"
        )
    if answer.get("ratios"):
        lines.append(
            "  ratio: the first contender's tokens per CPU-second over this one's, median of"
            f" {answer['rounds']} rounds"
        )
    return "\n".join([*lines, *answer.get("notes", [])])
