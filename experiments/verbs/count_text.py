"""Counts in words: what `isoflop count` prints for people."""

from model import parts
from model.config import Model

GROUPS = {
    "token_embedding": "token embedding",
    "positions": "positions",
    "attention": "attention",
    "mixer": "other mixers",
    "mlp": "MLP",
    "router": "router",
    "experts": "experts",
    "shared_experts": "shared experts",
    "norms": "norms",
    "head": "head",
}
SHARES = {
    "attention_map": "the attention map or recurrence",
    "attention_projections": "its projections",
    "mlp": "MLPs and experts",
    "router": "routers",
    "head": "the head",
}
NAMES = {
    "total": "total",
    "active": "active: experts of one token",
    "non_embedding": "non-embedding",
    "active_non_embedding": "active non-embedding",
    "multiplied": "multiplied: the N of fits",
}


def short(n: float) -> str:
    """1234567 as 1.23M, 46.7e9 as 46.7B."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:.3g}"


def size(n: float) -> str:
    """Bytes in decimal units: 13.5 GB."""
    for unit, text in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= unit:
            return f"{n / unit:.3g} {text}"
    return f"{n:.0f} bytes"


def _shape(m: Model, d: dict) -> list[str]:
    first = f"{parts.written(m.first)}, then " if m.first else ""
    lines = [
        f"{d['family']} model: d_model {m.d_model:,}, {m.n_layers} layers, vocabulary"
        f" {m.vocab_size:,}, context {m.seq_len:,}",
        f"  layers: {first}{parts.written(m.pattern)}",
    ]
    if d.get("ignored"):
        lines.append(
            f"  passed over in config.json, for no count depends on it: {'; '.join(d['ignored'])}"
        )
    return lines


def _parameters(c: Model, p: dict) -> list[str]:
    lines = ["parameters"]
    for group, text in GROUPS.items():
        if p["groups"][group]:
            lines.append(
                f"  {text:<30}{p['groups'][group]:>22,}{p['groups'][group] / p['total']:>8.1%}"
            )
    lines += [f"  {text:<30}{p[name]:>22,}" for name, text in NAMES.items()]
    if c.tied:
        lines.append(
            "  The head is the token embedding's tensor: counted once, among the embedding."
        )
    rows = c.positions.parameters(c) // c.d_model
    if rows:
        more = f" + {rows - c.seq_len}" if rows > c.seq_len else ""
        lines.append(
            f"  Learned positions own {c.seq_len:,}{more} x {c.d_model:,} of them: a context longer"
            f" by one token adds {c.d_model:,}."
        )
    else:
        name = parts.written(c.positions)
        lines.append(f"  Context adds no parameters: positions are {name}, not learned.")
    return lines + (_experts(c, p) if c.routed else [])


def _experts(m: Model, p: dict) -> list[str]:
    share = (
        f"  The router is {p['groups']['router'] / p['active']:.2%} of the active parameters;"
        " at equal active parameters it is not compensated."
    )
    if len(set(m.routed)) > 1:
        kinds = ", ".join(map(parts.written, dict.fromkeys(m.routed)))
        return [f"  Experts differ between layers: {kinds}.", share]
    e, k, shared = m.routed[0].n_experts, m.routed[0].top_k, m.routed[0].n_shared
    one = p["groups"]["experts"] // e
    rest = p["total"] - p["groups"]["experts"]
    single = rest + one
    rounded = float(f"{single:.1g}")
    name = f" (by a name such as {e} x {short(rounded)}: {short(e * rounded)})"
    also = f" and {shared} shared" if shared else ""
    return [
        (
            f"  Why {short(p['total'])}, and not {e} x {short(single)} ="
            f" {short(e * single)}{name}: only the experts stand {e}"
        ),
        (
            f"  times. {short(rest)} of everything else stand once: {short(rest)} + {e} x"
            f" {short(one)} = {short(p['total'])}."
        ),
        (
            f"  A token passes {k} of {e} experts{also}: {short(rest)} +"
            f" {k} x {short(one)} = {short(p['active'])} active."
        ),
        share,
    ]


def _flops(d: dict) -> list[str]:
    lines = [
        "FLOPs per token, by convention (a multiply and an add are"
        f" 2){'forward':>16}{'training':>22}"
    ]
    for name, n in d["flops_per_token"].items():
        lines.append(f"  {name:<40}{n['forward']:>34,}{n['training']:>22,}")
    done = d["executed_flops_per_token"]
    label = (
        "executed here, at most" if d["assumed"].get("moe") == "loop" else "executed here"
    )  # its routing decides
    lines.append(f"  {label:<40}{done['forward']:>34,.0f}{done['training']:>22,.0f}")
    if "update" in done:
        lines.append(f"  {'executed by the update of the optimizer':<74}{done['update']:>22,.0f}")
    parts = [
        f"{d['forward_shares'][k]:.1%} {text}"
        for k, text in SHARES.items()
        if d["forward_shares"][k]
    ]
    return [*lines, f"  Of the forward pass (matmul) {', '.join(parts)}."]


def _memory(d: dict) -> list[str]:
    b, a, n = d["bytes"], d["assumed"], d["parameters"]["total"]
    how = (
        f"batch {a['batch']}, context {d['context']:,}, {a['dtype']},"
        f" {'with' if a['remat'] else 'no'} remat"
    )
    how += f", experts by where.moe={a['moe']}" if "moe" in a else ""
    lines = [f"bytes of training on one device ({how})"]
    for name in ("parameters", "gradients", "optimizer_state", "buffers", "batch", "activations"):
        if b[name]:
            about = "  by a formula, not exact: docs/counting.md" if name == "activations" else ""
            lines.append(f"  {name.replace('_', ' '):<30}{b[name]:>22,}   {size(b[name])}{about}")
    if a["remat"] and not a["scan"]:
        lines.append(
            "  On CPU the compiler undoes the saving of remat in layers that are not scanned: set"
            " where.scan=true."
        )
    per, whole = b["kv_cache_per_token"], b["kv_cache_per_token"] * d["context"]
    two = (
        ""
        if a["dtype"] == "bfloat16"
        else f"; in 2-byte numbers {per // 2:,} and {size(whole // 2)}"
    )
    lines.append(f"  {'KV cache per token':<30}{per:>22,}   {size(whole)} for a whole context{two}")
    if b["state_per_sequence"]:
        kept = b["state_per_sequence"]
        lines.append(f"  {'state per sequence':<30}{kept:>22,}   {size(kept)}, whatever its length")
    lines.append(
        f"  Weights in 2-byte numbers: {short(n)} x 2 = {size(2 * n)}. With 90% of them zero"
        f" {short(n / 10)} of {short(n)} would be left."
    )
    return lines


def _compiler(d: dict) -> list[str]:
    k, tokens = d["compiler"], d["assumed"]["batch"] * d["context"]
    if "mesh" in k:
        return _over(d)
    lines = [
        f"the compiler's own figures ({k['compiler']}, {k['device']}), not counts of this account"
    ]
    for name, text in (
        ("forward_backward", "forward and backward pass"),
        ("step", "whole training step"),
    ):
        b = k[name]
        given = (
            f"arguments {size(b['arguments'])}, outputs {size(b['outputs'])}, of which donated"
            f" {size(b['donated'])}"
        )
        lines.append(
            f"  {text:<30}{b['total']:>22,}   {size(b['total'])}: temporaries"
            f" {size(b['temporaries'])}, {given}"
        )
    ours, theirs = d["bytes"]["activations"], k["forward_backward"]["temporaries"]
    lines.append(
        f"  Activations by this account over the compiler's temporaries: {ours / theirs:.3f}"
    )
    if k["flops"]:
        ratio = k["flops"] / tokens / d["executed_flops_per_token"]["training"]
        lines.append(
            f"  FLOPs per token {k['flops'] / tokens:,.0f}, elementwise work included: {ratio:.3f}"
            " of those executed by this account"
        )
    return lines


def _over(d: dict) -> list[str]:
    """What the step holds and sends on each device of a mesh."""
    k, batch = d["compiler"], d["assumed"]["batch"]
    axes = ", ".join(f"{name} {n}" for name, n in k["mesh"].items() if n > 1) or "one device"
    even = k["state_bytes"] / k["state_bytes_if_even"]
    b = k["step"]
    lines = [
        (
            f"compiled for {k['devices']} x {k['device']} ({axes}) in {k['compile_s']:.1f} s"
            f" ({k['compiler']}); per device, of a step on {batch} sequences"
        ),
        (
            f"  {'state':<30}{k['state_bytes']:>22,}   {size(k['state_bytes'])}, {even:.3f} of the"
            " whole over fsdp x tensor x expert"
        ),
        (
            f"  {'the step in all':<30}{b['total']:>22,}   {size(b['total'])}: state, batch,"
            f" temporaries {size(b['temporaries'])}"
        ),
        f"  {'axis':<14}{'collective':<20}{'times':>7}{'bytes sent':>19}",
    ]
    lines += [
        f"  {r['axes']:<14}{r['op']:<20}{r['count']:>7,}{r['bytes']:>19,}   {size(r['bytes'])}"
        for r in k["collectives"]
    ]
    sent, done = (
        sum(r["bytes"] for r in k["collectives"]),
        d["executed_flops_per_token"]["training"] * batch * d["context"] / k["devices"],
    )
    return [
        *lines,
        (
            f"  FLOPs of a device per byte that it sends: {done / sent:,.0f}"
            if sent
            else "  Nothing is sent."
        ),
        (
            "  Involuntary rematerialisations in the compiler's log:"
            f" {k['involuntary_rematerialisations']}"
        ),
    ]


def _elsewhere(d: dict) -> list[str]:
    lines = ["training FLOPs per token of this model elsewhere, and over `matmul`"]
    for name, f in d["elsewhere"].items():
        lines.append(f"  {name:<22}{f['training']:>22,.0f}{f['ratio']:>8.3f}   {f['differs']}")
    return lines


def text(c: Model, d: dict) -> str:
    """An explanation of `d`, the answer of `isoflop count` for `c`."""
    lines = [*_shape(c, d), *_parameters(c, d["parameters"]), *_flops(d), *_memory(d)]
    if "elsewhere" in d:
        lines += _elsewhere(d)
    if "compiler" in d:
        lines += _compiler(d)
    if "steps" in d:
        tokens = d["training_tokens"]
        lines.append(
            f"training: {d['steps']:,} steps, {tokens:,} tokens, {d['flops']['matmul']:.4g} FLOPs"
            " (matmul)"
        )
    return "\n".join(lines)
