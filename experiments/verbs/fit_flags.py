"""Flags of `isoflop fit --law`: what is known before the fit, and how a table is read, which
`isoflop compare` shares.
"""

from absl import flags

from experiments.cli import UserError

NAMES = ("fix", "tie", "within", "overestimate_penalty", "weights", "frontier")


def define(fv) -> None:
    """Adds NAMES."""
    for name, text in (
        ("fix", "NAME=VALUE of a law's parameter that is known, such as E=1.6; repeatable"),
        ("tie", "NAME=OTHER: two parameters that are one, such as alpha=beta; repeatable"),
        ("within", "NAME=LOW:HIGH: bounds of a parameter, such as alpha=.2:.6; repeatable"),
    ):
        flags.DEFINE_multi_string(name, [], text, flag_values=fv)
    flags.DEFINE_float(
        "overestimate_penalty",
        1.0,
        "how often an overestimate counts: 10 fits the runs from below, for a badly tuned run has"
        " too high a loss",
        flag_values=fv,
    )
    flags.DEFINE_string("weights", "", "column of the runs' weights", flag_values=fv)
    flags.DEFINE_bool(
        "frontier", False, "fit the runs alone that no cheaper run beats", flag_values=fv
    )


def define_table(fv) -> None:
    """Adds --where and --columns."""
    flags.DEFINE_string(
        "where", "", 'rows that are fitted, such as "is_outlier==0 and loss<5"', flag_values=fv
    )
    flags.DEFINE_string(
        "columns", "", "COMMON=THEIRS,... where a file's columns have other names", flag_values=fv
    )


def columns(fv) -> dict[str, str]:
    """{common: theirs} of --columns and --loss. Raises UserError."""
    out = {}
    for pair in filter(None, fv.columns.split(",")):
        common, equals, theirs = pair.partition("=")
        if not equals:
            raise UserError(
                f"--columns={fv.columns}: write COMMON=THEIRS, such as"
                " tokens=train_tokens,loss=val_loss"
            )
        out[common.strip()] = theirs.strip()
    return ({"loss": fv.loss} if fv.loss else {}) | out
