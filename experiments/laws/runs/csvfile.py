"""CSV files as people and spreadsheets save them, as columns of cells.

Byte-order marks, UTF-16, `;` and tabs, decimal commas, thousands separators and words for "no
value" are read. What can be read two ways is refused, with the row, the column and the cell.
"""

import csv
import io
import math
import re

from experiments.laws.exceptions import FitError

EMPTY = {"", "-", "--", "–", "—", "na", "n/a", "#n/a", "nan", "null", "none", "empty", "nil", "?"}
SEPARATORS = ",;\t|"
_SPACES = re.compile(r"(?<=\d)[\s\u00a0\u202f\u2009'’](?=\d{3}(?!\d))")
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_GROUPED = {  # 1,234 and 1,234.5 with this separator of thousands
    ",": re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?"),
    ".": re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?"),
}
_DECIMAL = {m: re.compile(rf"[+-]?\d*{re.escape(m)}\d*{_EXPONENT}") for m in ",."}


class Cell(str):
    """The text of a cell without spaces around it. `row`: of the file. `value`: the number, NaN for
    no value, None for words. `why`: what is wrong with its row.
    """

    row: int
    value: float | None
    why: str = ""


def decode(path: str) -> str:
    """The text of a file. Raises FitError."""
    try:
        with open(path, "rb") as f:
            body = f.read()
    except OSError as e:
        raise FitError(f"{path} cannot be read as CSV ({str(e)[:80]})") from None
    wide = body[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        if wide or b"\0" not in body:
            return body.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as e:
        row = body[: e.start].count(b"\n") + 1
        raise FitError(f"{path} is not UTF-8 text (row {row}): save it as CSV in UTF-8") from None
    raise FitError(f"{path} is not UTF-8 text (it holds zero bytes): save it as CSV in UTF-8")


def read(path: str) -> dict[str, list[Cell]]:
    """Columns by name, and `row`, unless the file has a column of that name. Raises FitError."""
    text = decode(path)
    declared = re.match(r"sep=(.)\r?\n", text)  # a line that a spreadsheet writes and eats
    first = next((line for line in text.splitlines()[bool(declared) :] if line.strip()), "")
    outside = re.sub(r'"[^"]*"', "", first)
    separator = declared[1] if declared else max(SEPARATORS, key=outside.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    rows = []
    try:
        for row in reader:
            if any(c.strip() for c in row):
                rows.append((reader.line_num, [c.strip() for c in row]))
    except csv.Error as e:
        raise FitError(f"{path} cannot be read as CSV (row {reader.line_num}: {e})") from None
    rows = rows[1:] if declared else rows
    if len(rows) < 2:
        raise FitError(
            f"{path} holds no rows: a CSV with a header line and one run per line is wanted"
        )
    (_, names), rows = rows[0], rows[1:]
    _header(path, names)
    wide = len(names)
    rows = [(n, r if any(r[wide:]) else r[:wide]) for n, r in rows]  # empty cells at the end
    mark = _mark(path, names, [(n, r) for n, r in rows if len(r) == len(names)], separator)
    out = {name: [] for name in names if name}
    numbered = "row" not in out
    for number, row in rows:
        why = "" if len(row) == len(names) else f"has {len(row)} cells under {len(names)} names"
        for name, text in zip(names, row if not why else [""] * len(names)):
            if name:
                out[name].append(_cell(text, number, mark, why))
        if numbered:
            out.setdefault("row", []).append(_cell(str(number), number, "", ""))
    return out


def _header(path, names) -> None:
    for i, name in enumerate(names):
        if name and name in names[:i]:
            raise FitError(
                f"{path} has two columns {name!r} ({names.index(name) + 1} and {i + 1}): rename one"
            )
    if not any(names) or all(_number(name, ".") is not None for name in names):
        raise FitError(
            f"{path} has no header line: its first row must name the columns, such as"
            " n_params,tokens,loss"
        )


def _cell(text: str, row: int, mark: str, why: str) -> Cell:
    cell = Cell(text)
    cell.row, cell.why, cell.value = row, why, None if why else _number(text, mark)
    return cell


def _number(text: str, mark: str) -> float | None:
    """NaN for no value, None for words. `mark`: the decimal mark where the file's numbers have
    commas.
    """
    if text.lower() in EMPTY:
        return math.nan
    text = _SPACES.sub("", text)
    if mark:
        thousands = "." if mark == "," else ","
        if _GROUPED[thousands].fullmatch(text):
            text = text.replace(thousands, "")
        text = text.replace(",", ".") if mark == "," and "." not in text else text
    try:
        return float(text)
    except ValueError:
        return None


def _mark(path, names, rows, separator) -> str:
    """The decimal mark of the file. Raises FitError where its commas can be read two ways."""
    seen, unclear = {}, None
    for number, row in rows:
        for name, text in zip(names, row):
            text = _SPACES.sub("", text)
            if not re.search(r"\d", text) or not re.fullmatch(r"[\d.,eE+-]+", text):
                continue
            where = f"row {number}, column {name!r}: {text!r}"
            marks = [m for m in ",." if _DECIMAL[m].fullmatch(text) and m in text]
            thousands = [m for m in ",." if _GROUPED[m].fullmatch(text) and m in text]
            if marks and not thousands:
                seen.setdefault(marks[0], where)
            elif thousands and not marks:
                seen.setdefault("." if thousands[0] == "," else ",", where)
            elif marks == [","]:
                unclear = unclear or where
    if "," in seen and "." in seen and separator == ",":
        return "."  # a quoted list such as "1,2": words, and refused where a number is wanted
    if "," in seen and "." in seen:
        raise FitError(
            f"{path} has decimal commas ({seen[',']}) and decimal points ({seen['.']}): write one"
            " of them"
        )
    if unclear and not seen:
        raise FitError(
            f"{path}, {unclear} is a decimal comma or a separator of thousands: write it without"
        )
    return "," if "," in seen else "."
