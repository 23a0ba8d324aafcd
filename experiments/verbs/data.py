"""Prepares a corpus, and says what is in it. Training prepares what it needs by itself; this verb
does it apart, before a sweep starts, and shows what one is about to train on.

isoflop data --prepare --set data.source=jsonl --set "data.path=corpus/*.jsonl.zst" \\
    --set data.tokenizer=hf --set data.tokenizer_path=tokenizer.json
isoflop data --inspect --set data.source=text --set "data.path=notes/*.md"
isoflop data --inspect --config=quickstart --format=json

Stopped and typed again, --prepare goes on where it was. --inspect adds a sample and the duplicates.
"""

import json
import sys
import time

from absl import flags

from data.config import Data
from experiments import cli
from experiments.cli import UserError
from experiments.console.terminal import printable
from experiments.verbs import common


def _bytes(n: float) -> str:
    """1234567 as 1.23 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}" if unit != "B" else f"{n:,.0f} B"
        n /= 1000
    return f"{n:,.3g} TB"


def _count(n) -> str:
    return "unknown" if n is None else f"{n:,}"


def _table(said: dict) -> list[str]:
    rows = [("", "documents", "bytes", "tokens", "bytes/token", "longest", "unknown")]
    places = [(name, about["splits"]) for name, about in said["sources"].items()]
    if len(places) > 1:
        places.append(("together", said["splits"]))
    for name, splits in places:
        for split, s in splits.items():
            per = f"{s['bytes_per_token']:.3f}" if s["bytes_per_token"] else "unknown"
            longest = s["longest_document"]
            rows.append(
                (
                    f"{name} {split}",
                    _count(s["documents"]),
                    _bytes(s["bytes"]) if s["bytes"] else "unknown",
                    _count(s["tokens"]),
                    per,
                    "unknown" if longest is None else _bytes(longest),
                    _count(s["unknown"]),
                )
            )
    return common.columns(rows)


def _print(said: dict) -> None:
    print(f"tokenizer {said['tokenizer']}: {said['vocab_size']:,} ids", end="")
    print(f", documents end with {said['separator']}" if said["separator"] >= 0 else "")
    print("\n".join(_table(said)))
    for name, about in said["sources"].items():
        weight = f"{about['share_of_tokens']:.1%} of the tokens"
        if "share_of_windows" in about:
            weight += f", {about['share_of_windows']:.1%} of what is trained on"
        print(f"{name}: {weight}, fingerprint {about['fingerprint']}")
        where = "read in place; counts in" if about["in_place"] else "token files in"
        print(f"  {where} {about['folder']} ({_bytes(about['disk_bytes'])})")
        if "duplicates" in about:
            d = about["duplicates"]
            print(
                f"  {d['repeated']:,} of {d['documents']:,} documents repeat an earlier one"
                if d
                else "  duplicates are not known: the documents are not told apart"
            )
            print(f"  sample: {printable(about['sample'].strip())[:200]!r}")
    print(f"{said['seconds']:.1f} s")


def _data(fv) -> tuple[Data, str]:
    """What --config and --set name, and the cache. Raises UserError or ConfigError."""
    settings = getattr(fv, "set")
    if fv.config:
        job = common.load(fv)
        return job.run.data, job.where.cache
    return common.data(settings), ""


def _body(fv) -> int:
    from data import inspection

    if fv.prepare == fv.inspect:
        raise UserError("choose one of --prepare and --inspect")
    if fv.workers < 0:
        raise UserError(f"--workers={fv.workers} cannot be negative")
    (d, root), started = _data(fv), time.perf_counter()
    said = inspection.describe(d, root, fv.workers, deep=fv.inspect)
    said["seconds"] = time.perf_counter() - started
    if fv.format == "json":
        print(json.dumps(said))
    else:
        _print(said)
    return 0


def main(argv=None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    fv = cli.flag_values("config", "set")
    flags.DEFINE_bool("prepare", False, "make the token files", flag_values=fv)
    flags.DEFINE_bool("inspect", False, "show what is in them too", flag_values=fv)
    flags.DEFINE_integer("workers", 0, "processes; 0: one for every core", flag_values=fv)
    return cli.run("data", __doc__, fv, argv, _body)


if __name__ == "__main__":
    sys.exit(main())
