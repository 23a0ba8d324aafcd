"""Pieces of HTML: everything that comes from records goes through `esc`."""

import html

CSS = """
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0;background:#f4f5f7;color:#1f2630;font:15px/1.55 -apple-system,"Segoe UI",Roboto,"DejaVu Sans",Helvetica,Arial,sans-serif}
main{max-width:1000px;margin:0 auto;padding:36px 20px 80px}
h1{font-size:28px;margin:0 0 4px;letter-spacing:-.01em}h2{font-size:19px;margin:0 0 4px}
.sub{color:#5a6472;margin:0 0 22px}section{background:#fff;border:1px solid #e1e4e9;border-radius:10px;padding:22px 24px;margin:18px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:18px 0}
.card{background:#fff;border:1px solid #e1e4e9;border-radius:10px;padding:14px 16px}.card b{display:block;font-size:20px;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.card span{color:#5a6472;font-size:13px}.dense{border-top:4px solid #3b6fb6}.moe{border-top:4px solid #d1602a}.plain{border-top:4px solid #8a919c}
ul.answer{margin:6px 0 12px;padding:0;list-style:none}ul.answer li{margin:3px 0;font-weight:600}
ul.answer li.in{font-weight:400;padding-left:20px;font-variant-numeric:tabular-nums}
p.read{margin:2px 0 12px;color:#3a4350}svg{width:100%;height:auto;display:block}
details{margin-top:12px}summary{cursor:pointer;color:#3b6fb6;font-size:14px}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:12.5px;font-variant-numeric:tabular-nums;margin-top:8px;width:100%}
th,td{padding:3px 9px;text-align:right;white-space:nowrap;border-bottom:1px solid #edeff2}th{color:#5a6472;font-weight:600;border-bottom:1px solid #c8cdd5}
td.t,th.t{text-align:left;white-space:normal}footer{color:#5a6472;font-size:13px;margin-top:22px}code{font-size:12.5px}
@media print{body{background:#fff}section{break-inside:avoid}}
"""  # noqa: E501


def esc(value) -> str:
    """Text that cannot become markup."""
    return html.escape(str(value))


def table(columns: list[str], rows: list[list], text_columns: int = 1) -> str:
    """An HTML table; the first `text_columns` columns are words."""

    def kind(i):
        return ' class="t"' if i < text_columns else ""

    head = "".join(f"<th{kind(i)}>{esc(c)}</th>" for i, c in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(f"<td{kind(i)}>{esc(v)}</td>" for i, v in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        "<div"
        f' class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def figure_section(
    title: str,
    reading: str,
    svg: str,
    data: str,
    name: str = "the data of this figure",
    opened: bool = False,
) -> str:
    return (
        f"<section><h2>{esc(title)}</h2><p class=read>{reading}</p>{svg}"
        f"<details{' open' if opened else ''}><summary>{esc(name)}</summary>{data}</details></section>"  # noqa: E501
    )


def units(a) -> list[str]:
    """Column heads of the three numbers, each with its convention."""
    return [f"N ({a['n_convention']})", "D (tokens)", f"C ({a['c_convention']})"]


def f4(v) -> str:
    return "" if v is None else f"{v:.4f}"


def g4(v) -> str:
    return "unbounded" if v is None else f"{v:.4g}"


def span(v, digits: int = 4) -> str:
    return (
        ""
        if not v
        else "[" + ", ".join(f"{x:.{digits}f}" if abs(x) < 1e6 else f"{x:.3g}" for x in v) + "]"
    )


def count_span(v) -> str:
    return "" if not v else f"[{v[0]:,.0f}, {v[1]:,.0f}]"


def card(kind: str, big: str, small: str) -> str:
    return f'<div class="card {kind}"><b>{esc(big)}</b><span>{esc(small)}</span></div>'
