"""The text form of parts: ``attention(window=128)/dense, attention/moe(n_experts=64,top_k=8)``.

    layers  layer, layer, ...                layer  part/part, and layer(field=value,...) after
    part    name, or name(field=value,...)          another slash where it has fields of its own
    value   number, true, false, word, a part, or a list of numbers: [1.0,2.5]

Only the form is known here, not what the names stand for (model/parts.py). No jax.
"""

import math
import re
from typing import NamedTuple

_TOKEN = re.compile(r"\s*([A-Za-z_][\w.\-]*|[-+]?[\d.][\w.+\-]*|[(),=/\[\]])")


class Node(NamedTuple):
    """A part as it is written: its name, and those of its fields that are named."""

    name: str
    fields: dict


def parse(text: str) -> tuple[tuple[Node, ...], ...]:
    """The layers of `text`, each a tuple of nodes. Raises ValueError that names the place."""
    reader = _Reader(text)
    out = []
    while reader.peek():
        nodes = [reader.node()]
        while reader.take("/"):
            nodes.append(reader.node())
        out.append(tuple(nodes))
        if reader.peek() and not reader.take(","):
            reader.fail("a comma or the end")
    return tuple(out)


def one(text: str) -> Node:
    """A single part. Raises ValueError."""
    reader = _Reader(text)
    node = reader.node()
    if reader.peek():
        reader.fail("the end")
    return node


def write(node: Node) -> str:
    """The text of a part."""
    inside = ",".join(f"{k}={value(v)}" for k, v in node.fields.items())
    return f"{node.name}({inside})" if inside else node.name


def value(held) -> str:
    """A value of a field as it is written."""
    if isinstance(held, Node):
        return write(held)
    if isinstance(held, tuple):
        return f"[{','.join(map(value, held))}]"
    if isinstance(held, bool):
        return str(held).lower()
    if isinstance(held, float) and held.is_integer() and abs(held) < 1e15:
        return f"{held:.1f}"
    return str(held)


class _Reader:
    def __init__(self, text: str):
        self.text, self.tokens, at = text, [], 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if not found:
                self.tokens.append((at, text[at:].strip()[0]))
                break
            self.tokens.append((found.start(1), found.group(1)))
            at = found.end()
        self.next = 0

    def peek(self) -> str:
        return self.tokens[self.next][1] if self.next < len(self.tokens) else ""

    def take(self, token: str) -> bool:
        found = self.peek() == token
        self.next += found
        return found

    def fail(self, wanted: str):
        at = self.tokens[self.next][0] if self.next < len(self.tokens) else len(self.text)
        before = f" after {self.text[:at].strip()[-30:]!r}" if at else ""
        got = repr(self.peek()) if self.peek() else "the end"
        raise ValueError(
            f"{self.text!r}: {wanted} expected{before}, not {got}; write layers as"
            " mixer/mlp, such as attention(window=128)/dense"
        )

    def word(self, what: str) -> str:
        token = self.peek()
        if not re.fullmatch(r"[A-Za-z_][\w.\-]*", token):
            self.fail(what)
        self.next += 1
        return token

    def node(self) -> Node:
        return self.fields(self.word("a name"))

    def fields(self, name: str) -> Node:
        out = {}
        if self.take("("):
            while not self.take(")"):
                key = self.word("a field")
                if key in out:
                    raise ValueError(f"{self.text!r}: {name} has {key} twice")
                if not self.take("="):
                    self.fail("an equals sign")
                out[key] = self.value()
                if self.peek() != ")" and not self.take(","):
                    self.fail("a comma or a closing bracket")
        return Node(name, out)

    def value(self):
        if self.take("["):
            out: tuple = ()
            while not self.take("]"):
                out = (*out, self.value())
                if self.peek() != "]" and not self.take(","):
                    self.fail("a comma or a closing bracket")
            return out
        token = self.peek()
        if token in ("true", "false", "True", "False"):
            self.next += 1
            return token.lower() == "true"
        if re.fullmatch(r"[-+]?[\d.].*", token):
            try:
                value = int(token)
            except ValueError:
                try:
                    value = float(token)
                except ValueError:
                    self.fail("a number")
                if not math.isfinite(value):
                    self.fail("a finite number")
            self.next += 1
            return value
        return self.node()


def literal(text: str):
    """A value of a field as it is typed: number, true or false, a part, or the text itself."""
    try:
        reader = _Reader(text)
        value = reader.value()
        if not reader.peek():
            return value.name if isinstance(value, Node) and not value.fields else value
    except ValueError:
        pass
    return text
