"""Times a part of the product on this machine: contenders alternate in one run, CPU-seconds beside wall time.

isoflop bench checkpoint                 what saving in the background costs at 10M parameters (about five minutes on two cores)
OPENBLAS_NUM_THREADS=1 isoflop bench laws    the vectorised fit against a scipy loop and the full grid of starts (ten minutes)
isoflop bench layouts                    the same training on every layout of the devices here against one of them (five minutes on two cores)
isoflop bench checkpoint --scale=toy     the same in seconds, to see that it runs
"""

import json
import sys

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.verbs import common


def main(argv=None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    part = argv.pop(0) if argv and not argv[0].startswith("-") else ""
    fv = cli.flag_values()
    flags.DEFINE_enum("scale", "full", ["full", "toy"], "toy: small shapes, seconds", flag_values=fv)
    flags.DEFINE_integer("rounds", 8, "how often the contenders alternate", lower_bound=1, flag_values=fv)

    def body(fv) -> int:
        from experiments.benchmarks import PARTS

        if part not in PARTS:
            raise UserError(f"name a part: {', '.join(PARTS)}" + (f" (not {part!r})" if part else ""))
        with common.stdout_to_stderr(fv.format == "json"):
            answer = PARTS[part].measure(fv.scale, fv.rounds)
        print(json.dumps(answer) if fv.format == "json" else PARTS[part].text(answer))
        return 0

    return cli.run("bench", __doc__, fv, argv, body)


if __name__ == "__main__":
    sys.exit(main())
