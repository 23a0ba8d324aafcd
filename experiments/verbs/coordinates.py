"""The coordinate check: sizes of activations and logits over widths or depths, as they start, after
a few updates, and of what these changed. Under a parametrisation that transfers no slope is left.

isoflop coordinates --config=tiny_dense
    widths 32 to 256, standard against mup: a minute on two cores
isoflop coordinates --config=tiny_dense --dial=depth --sizes=2,4,8,16 --out=depth.png
isoflop coordinates --config=tiny_dense --heads=wider
    as many heads at every width: their scores start smaller by theory, as 1/sqrt(their width)
isoflop coordinates --config=FILE.py --parametrisation="mup(base_width=128)" --set optimizer=muon

OUT is the figure, SVG or PNG by its name; the same in numbers stands beside it as JSON. A * marks a
slope that is further than 0.1 from 0.
"""

import json
import os
import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console.lazy import Lazy
from experiments.verbs import common
from launch import config, files
from launch.config import Job

measure = Lazy("experiments.coordinates.measure")
show = Lazy("experiments.coordinates.show")
plotting = Lazy("experiments.report.plotting")
pipeline = Lazy("data.pipeline")
compiled = Lazy("launch.runs.compiled")
parts = Lazy("model.parts")

DIALS = ("width", "depth")
SIZES = {"width": "32,64,128,256", "depth": "2,4,8,16"}
AGAINST = {"width": ("standard", "mup"), "depth": ("mup", "completep")}


def _sizes(fv) -> tuple[int, ...]:
    text = fv.sizes or SIZES[fv.dial]
    try:
        found = tuple(int(n) for n in text.split(","))
    except ValueError:
        found = ()
    if len(set(found)) < 2 or len(set(found)) < len(found) or min(found) < 1:
        raise UserError(f"--sizes={text}: give two or more different whole numbers, such as 32,64")
    return tuple(sorted(found))


def _figure(path: str) -> str:
    """The JSON file beside the figure. Raises UserError before anything is computed."""
    stem, ending = os.path.splitext(path)
    if ending not in (".svg", ".png"):
        raise UserError(f"--out={path}: name a file that ends with .svg or .png")
    common.check_out(path)
    return f"{stem}.json"


def _checked_run(job: Job, fv, size: int, text: str):
    """Raises ConfigError unless the run can be trained at that size under the parametrisation."""
    import dataclasses

    try:
        part = parts.part("parametrisation", text)
        model = measure.sized(job.run.model, fv.dial, size, fv.heads)
    except ValueError as e:
        raise UserError(f"{fv.dial} {size}, {text}: {e}") from None
    model = dataclasses.replace(model, parametrisation=part)
    config.check(dataclasses.replace(job.run, model=model, horizon=config.Horizon(steps=100)))


def _body(fv) -> int:
    if fv.updates < 1 or fv.seeds < 1:
        raise UserError("--updates and --seeds must be at least 1")
    at, beside = _sizes(fv), _figure(fv.out)
    job = common.load(fv)
    run, texts = job.run, fv.parametrisation or AGAINST[fv.dial]
    for text in texts:
        for n in at:
            _checked_run(Job(run), fv, n, text)
    compiled.use_cache(job.where.cache)
    dataset = pipeline.load(run.data, run.model.seq_len, job.where.cache)

    def batches(seed: int):
        import numpy as np

        first = seed * fv.updates
        return np.stack([dataset.batch(first + i, fv.batch) for i in range(fv.updates)])

    def say(line: str) -> None:
        print(f"isoflop: {line}", file=sys.stderr)

    about = {"recipe": fv.config, "dial": fv.dial, "sizes": at, "seeds": fv.seeds}
    about |= {"updates": fv.updates, "batch": fv.batch, "lr": run.optimizer.lr}
    about |= {"optimizer": config.to_dict(run.optimizer)}
    common_part = (fv.dial, at, batches, range(fv.seeds), fv.heads, say)
    found = [measure.check(run.model, run.optimizer, t, *common_part) for t in texts]
    answer = show.as_json(about, found)
    plotting.save(show.figure(about, found), fv.out)
    files.write_json(beside, answer)
    print(json.dumps(answer) if fv.format == "json" else show.text(about, found))
    if fv.format != "json":
        print(f"figure: {fv.out}, numbers: {beside}")
    return 0


def main(argv=None) -> int:
    fv = cli.flag_values("config", "set")
    flags.DEFINE_enum("dial", "width", list(DIALS), "what grows", flag_values=fv)
    flags.DEFINE_string(
        "sizes", "", "d_model, or layers [32,64,128,256, or 2,4,8,16]", flag_values=fv
    )
    flags.DEFINE_enum(
        "heads",
        "more",
        ["more", "wider"],
        "of wider models: more heads, as wide as the recipe's, or as many heads, which are wider",
        flag_values=fv,
    )
    flags.DEFINE_multi_string(
        "parametrisation",
        [],
        "standard, mup(base_width=64,base_head=16) or completep(base_depth=2); repeatable [standard"
        " and mup; of depths mup and completep]",
        flag_values=fv,
    )
    flags.DEFINE_integer("updates", 12, "updates between start and end", flag_values=fv)
    flags.DEFINE_integer("seeds", 3, "seeds, over which sizes are averaged", flag_values=fv)
    flags.DEFINE_integer("batch", 16, "sequences of an update", lower_bound=1, flag_values=fv)
    flags.DEFINE_string("out", "coordinates.svg", "figure to write, .svg or .png", flag_values=fv)
    return cli.run("coordinates", __doc__, fv, sys.argv[1:] if argv is None else argv, _body)


if __name__ == "__main__":
    sys.exit(main())
