"""The text form of a part of data: its name, and fields in brackets: ``jsonl(field=content)``."""

from data.config import DataError


def parse(text: str, what: str) -> tuple[str, dict[str, str]]:
    """Name and fields. what: the setting that the text is of. Raises DataError."""
    name, bracket, inside = text.strip().partition("(")
    if not bracket:
        return name, {}
    if not inside.endswith(")"):
        raise DataError(f"{what}={text}: a closing bracket is missing")
    fields: dict[str, str] = {}
    for part in split(inside[:-1]):
        key, equals, value = (t.strip() for t in part.partition("="))
        if not (key and equals):
            raise DataError(f"{what}={text}: write a field as name=value")
        if key in fields:
            raise DataError(f"{what}={text}: {name} has {key} twice")
        fields[key] = value[1:-1] if value[:1] in "'\"" and value[:1] == value[-1:] else value
    return name.strip(), fields


def split(text: str) -> list[str]:
    """The parts between commas that stand outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        if c == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts if p.strip()]


def number(fields: dict[str, str], key: str, text: str, what: str) -> int:
    """A field that is a whole number. Raises DataError."""
    try:
        return int(fields[key])
    except KeyError:
        raise DataError(f"{what}={text}: {key} is missing") from None
    except ValueError:
        raise DataError(f"{what}={text}: {key} must be a whole number") from None
