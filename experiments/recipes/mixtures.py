"""Which mixture of domains? Python, C and English in five mixtures; losses on each domain apart.

The three domains are on every machine that can run this: the standard library's source, the headers
of installed packages, and the descriptions that packages come with. Put your own in the place of
data.sources. `isoflop fit --workdir=DIR --loss=english` compares on one domain.
"""

import dataclasses
import sysconfig

from data.config import Data
from experiments.planning.grid import Sweep, SweepJob
from experiments.recipes import quickstart

MIXTURES = {
    "even": "python=0.334,c=0.333,english=0.333",
    "python_half": "python=0.5,c=0.25,english=0.25",
    "english_half": "python=0.25,c=0.25,english=0.5",
    "python_most": "python=0.8,c=0.1,english=0.1",
    "english_most": "python=0.1,c=0.1,english=0.8",
}


def recipe() -> SweepJob:
    packages = sysconfig.get_path("purelib")
    data = Data(
        sources=(
            "python=python_source,"
            f" c=text(path='{packages}/numpy/**/*.h', newlines=unix),"
            f" english=text(path='{packages}/*.dist-info/METADATA', newlines=unix)"
        ),
        mixture=MIXTURES["even"],
        validation_windows=384,
    )
    sweep = Sweep(
        name="mixtures",
        sizes=(32, 48),
        budgets=(),
        tokens=(400_000,),
        arms=tuple((k, f"dense; data.mixture={shares}") for k, shares in MIXTURES.items()),
        seeds=(0, 1, 2),
    )
    base = quickstart.recipe()
    return dataclasses.replace(base, sweep=sweep, run=dataclasses.replace(base.run, data=data))
