"""Where the runs of a sweep stand, read off its folder: done, running, waiting, failed, diverged,
and the time left. Only reads, so that anybody can look while others train.

isoflop status runs/quickstart
isoflop status runs/quickstart --watch
isoflop status --workdir=runs/quickstart --format=json
"""

import json
import os
import sys
import time

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console import terminal
from experiments.planning import trunks
from experiments.verbs import prediction_text
from launch import engines, files
from launch.runs import ledger, outcomes, predictions, record

COLOUR = {
    "done": "green",
    "running": "cyan",
    "waiting": "white",
    "failed": "red",
    "diverged": "yellow",
}
SIGN = {"done": "●", "running": "◐", "waiting": "○", "failed": "✗", "diverged": "!"}
ROWS = 20  # of a table on the screen; JSON has all


def read(workdir: str) -> dict:
    """Everything `isoflop status` says, ready for JSON. Raises UserError or RecordError."""
    if not os.path.exists(workdir):
        raise UserError(
            f"--workdir={workdir} does not exist: name the folder of a sweep or of a run"
        )
    if not os.path.isdir(workdir):
        raise UserError(f"--workdir={workdir} is a file: name the folder of a sweep or of a run")
    about = (
        files.read_json(p, "sweep")
        if os.path.exists(p := os.path.join(workdir, engines.SWEEP))
        else {}
    )
    runs, root = ledger.planned(about.get("runs")), os.path.join(workdir, engines.RUNS)
    if not runs:  # a sweep of an earlier version, or one run
        runs = [ledger.Planned(i, "unknown", None, 1.0, None) for i in ledger.identities(root)]
        if not runs and os.path.exists(os.path.join(workdir, record.RUN)):
            root, name = os.path.split(os.path.abspath(workdir))
            runs = [ledger.Planned(name, "unknown", None, 1.0, None)]
    if not runs:
        raise UserError(
            f"--workdir={workdir} holds neither a sweep nor a run: start one with isoflop sweep or"
            " isoflop train"
        )
    standings = {r.id: ledger.standing(os.path.join(root, r.id), r.id) for r in runs}
    counts = {s: sum(x.state == s for x in standings.values()) for s in ledger.STATES}
    named = about.get("sweep") if isinstance(about.get("sweep"), dict) else {}
    return {
        "workdir": workdir,
        "name": str(named.get("name", os.path.basename(os.path.abspath(workdir)))),
        "counts": counts,
        "left_s": ledger.left(runs, standings),
        "trunks": trunks.costs(_costs(r, standings[r.id]) for r in runs),
        "runs": [{**r._asdict(), **standings[r.id]._asdict()} for r in runs],
        "predictions": _predictions(workdir),
    }


def _predictions(workdir: str) -> list[dict]:
    """Of a sweep, or of a run that lies beside its prediction (isoflop next)."""
    above, name = os.path.split(os.path.abspath(workdir))
    of = os.path.dirname(above)
    if os.path.basename(above) == predictions.FOLDER and os.path.exists(
        predictions.place(of, name)
    ):
        return [r for r in outcomes.rows(of) if r["prediction"]["id"] == name]
    return outcomes.rows(workdir)


def _costs(r: ledger.Planned, s: ledger.Standing) -> tuple[float, float]:
    """FLOPs alone and here: as planned, once a run is done as it was."""
    done = s.state in ("done", "diverged")
    return r.flops, (s.spent if done else r.spent) or r.flops


def duration(seconds: float) -> str:
    """93 as 1 min 33 s."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s"
    return f"{s // 3600} h {s % 3600 // 60} min" if s < 172800 else f"{s / 86400:.1f} days"


def _bar(share: float, width: int, colour: str):
    from rich.text import Text

    full = round(share * width)
    return Text("━" * full, style=colour).append("━" * (width - full), style="grey30")


def view(s: dict, width: int = 130):
    """The same for people: one line of counts, who trains what, and what went wrong."""
    from rich.console import Group
    from rich.text import Text

    total = len(s["runs"])
    head = Text(terminal.printable(s["name"], 60), style="bold").append(
        f"  {terminal.printable(s['workdir'], 200)}", style="grey50"
    )
    counts = Text()
    for state, n in s["counts"].items():
        if n or state in ("done", "running", "waiting"):
            counts.append(f"{SIGN[state]} {n} {state}   ", style=COLOUR[state] if n else "grey50")
    end = "all done" if s["counts"]["done"] == total else ""
    if s["counts"]["running"] + s["counts"]["waiting"]:
        left = None if s["left_s"] is None else f"about {duration(s['left_s'])} left"
        end = left or (
            "time left: unknown yet"
            if s["counts"]["running"]
            else "nothing is training: the same isoflop sweep command goes on"
        )
    counts.append(end, style="bold" if end else "")
    saved = [Text(line) for line in (*trunks.words(s["trunks"]), *_packs(s["runs"]))]
    over = sum(s["counts"][k] for k in ("done", "failed", "diverged"))
    parts = [
        head,
        _bar(over / total, min(60, width - 12), "green").append(f"  {over}/{total}"),
        counts,
        *saved,
    ]
    parts += [t for t in (_training(s["runs"]), _troubles(s["runs"])) if t]
    parts += [Text(terminal.printable(prediction_text.line(r), 300)) for r in s["predictions"]]
    return Group(*parts)


def _packs(runs: list[dict]) -> list[str]:
    """That processes train several runs each."""
    training = [r["holder"] for r in runs if r["state"] == "running"]
    if len(set(training)) == len(training):
        return []
    return [f"packs     {len(training)} runs train in {len(set(training))} processes"]


def _table(*columns):
    from rich import box
    from rich.table import Table

    t = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in columns:
        t.add_column(
            name,
            justify="right" if name in ("size", "step", "loss", "silent") else "left",
            no_wrap=name != "why",
            overflow="ellipsis" if name == "process" else "fold",
        )
    return t


def _training(runs):
    mine = [r for r in runs if r["state"] == "running"]
    if not mine:
        return None
    from rich.text import Text

    t = _table("training", "family", "size", "", "step", "loss", "silent", "process")
    for r in mine[:ROWS]:
        known = r["step"] is not None and r["of"]
        t.add_row(
            Text(r["id"][:40]),
            Text(terminal.printable(r["family"], 20)),
            str(r["size"] or ""),
            _bar(min(1.0, r["step"] / r["of"]) if known else 0.0, 10, "cyan"),
            f"{r['step']}/{r['of']}" if known else "",
            "" if r["loss"] is None else f"{r['loss']:.3f}",
            duration(r["age"]),
            Text(terminal.printable(r["holder"], 40).removeprefix("process ")),
        )
    if len(mine) > ROWS:
        t.add_row(f"and {len(mine) - ROWS} more")
    return t


def _troubles(runs):
    from rich.text import Text

    bad = [r for r in runs if r["state"] in ("failed", "diverged")]
    if not bad:
        return None
    t = _table("set aside", "", "family", "size", "why")
    for r in bad[:ROWS]:
        what = Text(f"{SIGN[r['state']]} {r['state']}", style=COLOUR[r["state"]])
        t.add_row(
            Text(r["id"][:40]),
            what,
            Text(terminal.printable(r["family"], 20)),
            str(r["size"] or ""),
            Text(terminal.printable(r["why"] or "", 300)),
        )
    if len(bad) > ROWS:
        t.add_row(f"and {len(bad) - ROWS} more")
    return t


def _body(fv) -> int:
    from rich.live import Live

    if not fv.workdir:
        raise UserError(
            "--workdir is missing: name the folder of a sweep, as in isoflop status runs/quickstart"
        )
    said, console = read(fv.workdir), terminal.console(width=None if sys.stdout.isatty() else 130)

    def still():
        return fv.watch and said["counts"]["running"] + said["counts"]["waiting"]

    if fv.format == "json" or not console.is_terminal or not fv.watch:
        while True:
            (
                console.print(view(said, console.width), highlight=False)
                if fv.format != "json"
                else print(json.dumps(said), flush=True)
            )
            if not still():
                return 0
            time.sleep(fv.every)
            said = read(fv.workdir)
    with Live(view(said, console.width), console=console, auto_refresh=False) as live:
        while still():
            time.sleep(fv.every)
            said = read(fv.workdir)
            live.update(view(said, console.width), refresh=True)
    return 0


def main(argv=None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv and not argv[0].startswith("-"):  # isoflop status WORKDIR
        argv = [f"--workdir={argv[0]}", *argv[1:]]
    fv = cli.flag_values("workdir")
    flags.DEFINE_bool(
        "watch", False, "again and again, until nothing runs or waits", flag_values=fv
    )
    flags.DEFINE_float(
        "every", 2.0, "seconds between two looks of --watch", lower_bound=0.1, flag_values=fv
    )
    return cli.run("status", __doc__, fv, argv, _body)


if __name__ == "__main__":
    sys.exit(main())
