"""Entry point of the `isoflop` command: what must come before anything is imported."""

import sys

from launch.devices import allocator


def main() -> int:
    if sys.argv[1:2] == ["train"]:
        allocator.restart()
    from experiments import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
