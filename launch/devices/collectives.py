"""What a compiled program sends between devices: read from its HLO, by mesh axis.

A row is {"axes", "op", "count", "bytes"}: per device and run of the program, bodies of loops times
their trip count. `bytes` are those that a device sends over a ring of the n devices of a group:
(n-1)/n of what is gathered, scattered or exchanged, twice that of what is reduced for all.
"""

import math
import re

import numpy as np

OPS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
)
SENT = {
    "all-gather": lambda size, n: size * (n - 1) / n,
    "reduce-scatter": lambda size, n: size * (n - 1),  # its result is one share
    "all-reduce": lambda size, n: 2 * size * (n - 1) / n,
    "all-to-all": lambda size, n: size * (n - 1) / n,
    "ragged-all-to-all": lambda size, n: size * (n - 1) / n,
    "collective-permute": lambda size, n: size,
}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(OPS)})(-start)?\(")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|called_computations)=\{?((?:%[\w.\-]+(?:,"
    r" )?)+)"
)
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')


def _bits(dtype: str) -> int:
    return 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype.replace("fn", "")) or 0)


def _size(result: str, op: str, started: bool) -> float:
    """Bytes of an operation's result; of an asynchronous one, which carries its operands in front,
    of the results alone.
    """
    sizes = [
        math.prod(map(int, filter(None, dims.split(",")))) * _bits(dtype) / 8
        for dtype, dims in _SHAPE.findall(result)
    ]
    if started and op == "collective-permute":
        return sizes[1]
    if started and op != "all-reduce":
        sizes = sizes[len(sizes) // 2 :]
    return sum(sizes)


def _iota(text: str) -> np.ndarray:
    """[4,2]<=[2,2,2]T(1,0,2) or [2,4]T(1,0): device ids reshaped, transposed, and reshaped."""
    shape, _, source = text.rpartition("<=")
    dims, _, order = source.partition("T")

    def numbers(t):
        return [int(n) for n in re.findall(r"\d+", t)]

    ids = np.arange(math.prod(numbers(dims))).reshape(numbers(dims))
    ids = ids.transpose(numbers(order)) if order else ids
    return ids.reshape(numbers(shape)) if shape else ids


def _mesh_group(text: str) -> np.ndarray:
    """mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b', 'a':(1)2}: the ids that the named axes, or
    parts of them, run through.
    """
    axes = re.search(r"mesh\[(.*?)\]", text)[1]
    sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", axes)}
    order = re.search(r"device_ids=\((\S*)\) ", text)
    ids = (_iota(order[1]) if order else np.arange(math.prod(sizes.values()))).reshape(
        *sizes.values()
    )
    steps = {name: np.zeros(1, int) for name in sizes}
    for name, before, size in re.findall(
        r"'([^']+)'(?::\((\d+)\)(\d+))?", re.search(r"\{('.*?)\}", text)[1]
    ):
        count = int(size or sizes[name])
        steps[name] = np.arange(count) * (sizes[name] // (int(before or 1) * count))
    return ids[np.ix_(*steps.values())].ravel()


def _group(line: str, devices: int) -> np.ndarray:
    """The devices of one group of a collective; of pairs, all that are paired with another."""
    if "source_target_pairs=" in line:
        pairs = re.findall(
            r"\{(\d+),(\d+)\}", re.search(r"source_target_pairs=\{(.*?\})\}", line)[1]
        )
        return np.array(pairs, int)
    text = re.search(r"replica_groups=(.*)", line)[1]
    if text.startswith("mesh"):
        return _mesh_group(text)
    if text.startswith("["):
        return _iota(re.match(r"\S+?(?=,? |,$|$)", text)[0].rstrip(","))[0]
    first = re.match(r"\{+([\d,]*)", text)[1]
    return np.array([int(n) for n in first.split(",")]) if first else np.arange(devices)


def _axes(group: np.ndarray, sizes: dict[str, int]) -> str:
    """The mesh axes along which the members of a group, or the two ends of pairs, differ."""
    places = np.array(np.unravel_index(group, tuple(sizes.values())))
    differ = (places != places[..., :1]).reshape(len(sizes), -1).any(1)
    return "+".join(name for name, d in zip(sizes, differ) if d) or "none"


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """(lines of every computation by name, the name of the entry)."""
    found, entry, name = {}, "", None
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            name = start[2]
            found[name] = []
            entry = name if start[1] else entry
        elif name:
            found[name].append(line)
    return found, entry


def _first(line: str, chains: set) -> bool:
    """Whether this is not one more piece of a collective that was met: a TPU compiler spreads one
    over its start, the computations beside which it runs, and its end, with the same channel and
    chain.
    """
    chain = re.search(r'channel_id=(\d+).*chain_id="(\d+)"', line)
    if not chain:
        return True
    new = chain.groups() not in chains
    chains.add(chain.groups())
    return new


def _operands(line: str) -> list[str]:
    """Names of an instruction's operands, in order."""
    inside = re.search(r" [\w\-]+\((%.*?)\)(?:,|$)", re.sub(r"/\*.*?\*/", "", line))
    return re.findall(r"%([\w.\-]+)", inside[1]) if inside else []


def _trips(line: str, computations) -> int | None:
    """How often a loop runs: as the compiler notes it; else (TPU) from `counter < bound` of its
    condition and `counter + step` of its body, for a counter from 0. None if neither is there.
    """
    if noted := _TRIPS.search(line):
        return int(noted[1])

    def inside(key):
        return computations.get(re.search(rf"{key}=%?([\w.\-]+)", line)[1], [])

    defined = {
        re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", l)[1]: l
        for key in ("condition", "body")
        for l in inside(key)
        if " = " in l
    }

    def value(name):
        return next(iter(re.findall(r" constant\((\d+)\)", defined.get(name, ""))), None)

    less = next((l for l in inside("condition") if "ROOT" in l and "direction=LT" in l), "")
    root = next((l for l in inside("body") if "ROOT" in l and " tuple(" in l), "")
    try:
        counter, bound = _operands(less)
        place = int(re.search(r"index=(\d+)", defined[counter])[1])
        steps = [value(name) for name in _operands(defined[_operands(root)[place]]) if value(name)]
        return -(-int(value(bound)) // int(steps[0]))
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def table(text: str, sizes: dict[str, int]) -> list[dict]:
    """Rows of a compiled program's HLO; `sizes` are those of the mesh axes, in order. Raises
    ValueError on a loop of unknown length that holds a collective.
    """
    computations, entry = _computations(text)
    rows: dict[tuple[str, str], list[float]] = {}
    chains: set[tuple[str, str]] = set()

    def visit(name: str, times: int | None) -> None:
        for line in computations.get(name, ()):
            if (found := _COLLECTIVE.search(line)) and _first(line, chains):
                if times is None:
                    raise ValueError(
                        "a collective in a loop whose length the compiler does not know"
                    )
                group = _group(line, math.prod(sizes.values()))
                sent = SENT[found[2]](_size(found[1], found[2], bool(found[3])), len(group))
                row = rows.setdefault((_axes(group, sizes), found[2]), [0, 0.0])
                row[0], row[1] = row[0] + times, row[1] + times * sent
            inner = times
            if " while(" in line:
                trips = _trips(line, computations)
                inner = times * trips if trips and times else None
            for called in _CALLED.findall(line):
                for other in re.findall(r"%([\w.\-]+)", called):
                    visit(other, inner)

    visit(entry, 1)
    return [
        {"axes": axes, "op": op, "count": int(n), "bytes": round(b)}
        for (axes, op), (n, b) in sorted(rows.items())
        if b
    ]
