"""Every recurrence once more, from its paper's equation, a token at a time: f(part, model, w, x_TD)
-> y_TD, w the mixer's parameters. Written to be read beside the paper, not to be fast.
"""

import jax
import jax.numpy as jnp
import numpy as np

REFERENCES = {}


def reference(name):
    def kept(f):
        REFERENCES[name] = f
        return f

    return kept


sigmoid, softplus, silu = jax.nn.sigmoid, jax.nn.softplus, jax.nn.silu


def rms(x, scale=1.0, eps=1e-5):
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + eps) * scale


def heads(w, name, x_TD):
    y = jnp.tensordot(x_TD, w[name]["kernel"], 1)
    return y + w[name]["bias"] if "bias" in w[name] else y


def out(w, y):
    """A sum over all heads and their widths, or over channels."""
    kernel = w["out"]["kernel"]
    y = jnp.tensordot(y, kernel, kernel.ndim - 1)
    return y + w["out"]["bias"] if "bias" in w["out"] else y


def loop(step, state, *rows):
    """[y_t], of `step(state, *rows of t) -> state, y_t`."""
    return jax.lax.scan(lambda s, now: step(s, *now), state, rows)[1]


def mixed(shares, x):
    """share x_t + (1 - share) x_(t-1), for each of `shares`."""
    before = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
    return [share * x + (1 - share) * before for share in shares]


def convolved(w, x):
    """y_t = sum_i w_i x_(t - width + 1 + i)."""
    width = w["kernel"].shape[0]
    before = jnp.concatenate([jnp.zeros((width - 1, *x.shape[1:])), x])
    seen = [before[i : i + len(x)] for i in range(width)]
    return sum(w["kernel"][i] * seen[i] for i in range(width)) + w.get("bias", 0.0)


# cells


@reference("rnn")
def rnn(p, m, w, x):
    """Elman 1990."""

    def step(h, x):
        h = jnp.tanh(x @ w["in"]["kernel"][:, 0] + h @ w["recurrent"][:, 0] + w["bias"])
        return h, h

    return out(w, loop(step, jnp.zeros(p.units(m)), x))


@reference("lstm")
def lstm(p, m, w, x):
    """Gers et al. 2000, eq 2 to 9, without peepholes."""

    def step(state, x):
        h, c = state
        i, f, g, o = (
            x @ w["in"]["kernel"][:, n] + h @ w["recurrent"][:, n] + w["bias"][n] for n in range(4)
        )
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return out(w, loop(step, (jnp.zeros(p.units(m)),) * 2, x))


@reference("gru")
def gru(p, m, w, x):
    """Cho et al. 2014, eq 5 to 8, the reset gate after the matrix."""

    def step(h, x):
        from_x = [x @ w["in"]["kernel"][:, n] + w["bias"][n] for n in range(3)]
        from_h = [h @ w["recurrent"][:, n] for n in range(3)]
        r, z = sigmoid(from_x[0] + from_h[0]), sigmoid(from_x[1] + from_h[1])
        h = (1 - z) * jnp.tanh(from_x[2] + r * (from_h[2] + w["new_bias"])) + z * h
        return h, h

    return out(w, loop(step, jnp.zeros(p.units(m)), x))


# linear recurrences: a head at a time, over THK


def by_head(f, *a_TH):
    """Rows of every head, (T, H, ...), of `f` of one head's."""
    return jax.vmap(f, 1, 1)(*a_TH)


@reference("linear_attention")
def linear_attention(p, m, w, x):
    """Katharopoulos et al. 2020, eq 16 to 20."""

    def one(q, k, v):
        def step(state, fq, fk, v):
            s, z = state[0] + jnp.outer(fk, v), state[1] + fk
            return (s, z), fq @ s / (fq @ z)

        empty = jnp.zeros((k.shape[1], v.shape[1])), jnp.zeros(k.shape[1])
        return loop(step, empty, jax.nn.elu(q) + 1, jax.nn.elu(k) + 1, v)

    return out(w, by_head(one, *(heads(w, n, x) for n in "qkv")))


@reference("retnet")
def retnet(p, m, w, x):
    """Sun et al. 2023, eq 5 to 8, with queries and keys as complex numbers."""
    width = p.widths(m)[0]
    half, at = width // 2, np.arange(len(x))
    turn = np.exp(1j * at[:, None] * p.theta ** (-np.arange(half) / half))
    decays = 1 - 2.0 ** (-5 - np.arange(p.n_heads)) + np.zeros((len(x), 1))

    def one(decay, q, k, v):
        def step(s, decay, q, k, v):
            s = decay * s + jnp.outer(k.conj(), v)
            return s, (q @ s).real

        q, k = ((a[:, :half] + 1j * a[:, half:]) * turn for a in (q, k))
        return loop(step, jnp.zeros((half, v.shape[1]), complex), decay, q, k / width**0.5, v)

    y = by_head(one, jnp.asarray(decays), *(heads(w, n, x) for n in "qkv"))
    return out(w, rms(y) * silu(heads(w, "gate", x)))


@reference("gla")
def gla(p, m, w, x):
    """Yang et al. 2023, eq 3 and section 4.4."""
    a = sigmoid(heads(w, "decay", x @ w["decay_down"]["kernel"])) ** (1 / 16)

    def one(q, k, v, a):
        def step(s, q, k, v, a):
            s = a[:, None] * s + jnp.outer(k, v)
            return s, q @ s / len(k) ** 0.5

        return loop(step, jnp.zeros((k.shape[1], v.shape[1])), q, k, v, a)

    y = by_head(one, *(heads(w, n, x) for n in "qkv"), a)
    return out(w, rms(y, w["norm_head"]["scale"]) * silu(heads(w, "gate", x)))


@reference("mamba2")
def mamba2(p, m, w, x):
    """Dao & Gu 2024, section 6, and section 7 for the block."""
    u, b, c = (silu(convolved(w[f"conv_{n}"], heads(w, n, x))) for n in "xbc")
    b, c = (jnp.repeat(a, p.heads(m) // p.n_groups, 1) for a in (b, c))
    dt = softplus(heads(w, "steps", x)[..., 0] + w["steps_bias"])

    def one(u, b, c, dt, a):
        def step(s, u, b, c, dt, a):
            s = jnp.exp(dt * a) * s + dt * jnp.outer(b, u)
            return s, c @ s

        return loop(step, jnp.zeros((b.shape[1], u.shape[1])), u, b, c, dt, a)

    y = by_head(one, u, b, c, dt, -jnp.exp(w["rates"]) + jnp.zeros_like(dt))
    y = (y + w["skip"][:, None] * u) * silu(heads(w, "z", x))
    y = (
        rms(y.reshape(len(x), p.n_groups, -1), 1, p.norm_eps).reshape(len(x), -1)
        * w["norm_gated"]["scale"]
    )
    return out(w, y.reshape(len(x), p.heads(m), -1))


@reference("mamba")
def mamba(p, m, w, x):
    """Gu & Dao 2023, algorithm 2 and figure 3."""
    u, z = (heads(w, n, x) for n in "xz")
    u = silu(convolved(w["conv"], u))
    thin = {n: u @ w[n]["kernel"] for n in ("steps_down", "b", "c")}
    if p.thin_norm != "none":
        scales = {n: w.get(f"norm_{n}", {}).get("scale", 1) for n in thin}
        thin = {n: rms(a, scales[n], p.norm_eps) for n, a in thin.items()}
    dt = softplus(thin["steps_down"] @ w["steps"]["kernel"] + w["steps_bias"])
    a = -jnp.exp(w["rates"])

    def step(h, u, dt, b, c):
        h = jnp.exp(dt[:, None] * a) * h + dt[:, None] * b * u[:, None]
        return h, h @ c + w["skip"] * u

    y = loop(step, jnp.zeros_like(a), u, dt, thin["b"], thin["c"])
    return out(w, y * silu(z))


@reference("gated_delta")
def gated_delta(p, m, w, x):
    """Yang et al. 2024, arXiv 2412.06464, eq 10; without decay arXiv 2406.06484."""
    q, k, v = (silu(convolved(w[f"conv_{n}"], heads(w, n, x))) for n in "qkv")
    q, k = (a / jnp.sqrt((a * a).sum(-1, keepdims=True) + 1e-6) for a in (q, k))
    q, k = (jnp.repeat(a, p.heads() // p.n_heads, 1) for a in (q, k))
    b, decay = sigmoid(heads(w, "beta", x)[..., 0]), jnp.ones(v.shape[:2])
    if p.decay:
        dt = softplus(heads(w, "steps", x)[..., 0] + w["steps_bias"])
        decay = jnp.exp(-jnp.exp(w["rates"]) * dt)

    def one(q, k, v, b, decay):
        def step(s, q, k, v, b, decay):
            s = decay * s @ (jnp.eye(len(k)) - b * jnp.outer(k, k)) + b * jnp.outer(v, k)
            return s, s @ q / len(q) ** 0.5

        return loop(step, jnp.zeros((v.shape[1], k.shape[1])), q, k, v, b, decay)

    y = rms(by_head(one, q, k, v, b, decay), w["norm_head"]["scale"], p.norm_eps)
    return out(w, y * silu(heads(w, "gate", x)) if p.gate else y)


@reference("rg_lru")
def rg_lru(p, m, w, x):
    """De et al. 2024, eq 1 to 4."""
    y = jax.nn.gelu(x @ w["y"]["kernel"] + w["y"]["bias"])
    u = convolved(w["conv"], x @ w["x"]["kernel"] + w["x"]["bias"])

    def gate(name, u):
        blocks = jnp.split(u, p.n_heads)
        each = zip(blocks, w[name]["kernel"], w[name]["bias"])
        return sigmoid(jnp.concatenate([b @ k + bias for b, k, bias in each]))

    def step(h, t, u):
        r, i = gate("forget", u), gate("input", u)
        a = jnp.exp(-8 * softplus(w["rates"]) * r)
        h = a * h + jnp.where(t == 0, 1, jnp.sqrt(1 - a**2)) * (i * u)
        return h, h

    return out(w, y * loop(step, jnp.zeros_like(u[0]), jnp.arange(len(x)), u))


@reference("s4d")
def s4d(p, m, w, x):
    """Gu et al. 2022, eq 2 and 4."""
    a, c = -jnp.exp(w["rates"]) + 1j * w["turns"], w["c_real"] + 1j * w["c_imag"]
    turn = jnp.exp(jnp.exp(w["steps_bias"])[:, None] * a)

    def step(h, x):
        h = turn * h + (turn - 1) / a * x[:, None]
        return h, 2 * (c * h).sum(-1).real + w["skip"] * x

    y = jnp.tensordot(jax.nn.gelu(loop(step, jnp.zeros_like(a), x)), w["out"]["kernel"], 1)
    return y[:, 0] * sigmoid(y[:, 1])


@reference("s5")
def s5(p, m, w, x):
    """Smith et al. 2022, eq 2 and 4, and the conjugates of every number."""
    a = -jnp.exp(w["rates"]) + 1j * w["turns"]
    b = (w["b"]["kernel"][:, 0] + 1j * w["b"]["kernel"][:, 1]).T
    c = (w["c"]["kernel"][0] - 1j * w["c"]["kernel"][1]).T
    turn = jnp.exp(jnp.exp(w["steps_bias"]) * a)

    def step(h, x):
        h = turn * h + (turn - 1) / a * (b @ x)
        return h, (c @ h).real + w["skip"] * x

    y = jax.nn.gelu(loop(step, jnp.zeros_like(a), x))
    return y * sigmoid(y @ w["gate"]["kernel"])


@reference("gated_conv")
def gated_conv(p, m, w, x):
    """Dauphin et al. 2017, eq 1."""
    before = jnp.concatenate([jnp.zeros((p.conv - 1, m.d_model)), x])
    seen = jnp.concatenate([before[i : i + len(x)] for i in range(p.conv)], 1)
    a, b = (seen @ w["kernel"][:, :, i].reshape(-1, m.d_model) + w["bias"][i] for i in range(2))
    return a * sigmoid(b)


@reference("rwkv4")
def rwkv4(p, m, w, x):
    """Peng et al. 2023, eq 11 to 18, as sums over all tokens before."""
    xr, xk, xv = mixed(w["shift"], x)
    r, k, v = (a @ w[n]["kernel"] for a, n in ((xr, "r"), (xk, "k"), (xv, "v")))
    t, i = np.arange(len(x))[:, None, None], np.arange(len(x))[None, :, None]
    power = jnp.where(t == i, w["bonus"], -(t - 1 - i) * jnp.exp(w["rates"])) + k[None]
    weights = jnp.where(i <= t, jnp.exp(power), 0)
    return out(w, sigmoid(r) * ((weights * v[None]).sum(1) / weights.sum(1)))


def channel_mix(w, x):
    """Peng et al. 2023, eq 13 and 14 of the channel mix: section 3.1.1 and figure 2."""
    xr, xk = mixed(w["shift"], x)
    return sigmoid(xr @ w["r"]["kernel"]) * (
        jax.nn.relu(xk @ w["k"]["kernel"]) ** 2 @ w["out"]["kernel"]
    )


@reference("rwkv7")
def rwkv7(p, m, w, x):
    """Peng et al. 2025, section 4, in rows as the paper has them."""
    before = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])
    xr, xw, xk, xv, xa, xg = (x + share * (before - x) for share in w["shift"])
    r, k, v = (a @ w[n]["kernel"] for a, n in ((xr, "r"), (xk, "k"), (xv, "v")))
    low = jnp.tanh(xw @ w["w_down"]["kernel"]) @ w["w"]["kernel"]
    decay = jnp.exp(-jnp.exp(-0.5) * sigmoid(w["rates"] + low))
    a = sigmoid(w["a_bias"] + xa @ w["a_down"]["kernel"] @ w["a"]["kernel"])
    g = sigmoid(xg @ w["gate_down"]["kernel"]) @ w["gate"]["kernel"]
    along, k = k * w["along_bias"], k * (1 + (a - 1) * w["replace_bias"])
    r, k, v, along, a, decay, g = (
        y.reshape(len(x), p.n_heads, -1) for y in (r, k, v, along, a, decay, g)
    )
    along = along / jnp.sqrt((along * along).sum(-1, keepdims=True) + 1e-12)

    def one(r, k, v, along, a, decay):
        def step(s, r, k, v, along, a, decay):
            s = s @ (jnp.diag(decay) - jnp.outer(along, a * along)) + jnp.outer(v, k)
            return s, s @ r

        return loop(step, jnp.zeros((v.shape[1], k.shape[1])), r, k, v, along, a, decay)

    y = by_head(one, r, k, v, along, a, decay)
    y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 64e-5)
    y = y * w["norm_head"]["scale"] + w["norm_head"]["bias"]
    return out(w, (y + (r * k * w["bonus"]).sum(-1, keepdims=True) * v) * g)


@reference("hyena")
def hyena(p, m, w, x):
    """Poli et al. 2023, definition 3.1, its convolution as a sum."""
    q, k, v = (convolved(w[f"conv_{n}"], x @ w[n]["kernel"]) for n in "qkv")
    t = np.arange(len(x))[:, None] / (m.seq_len - 1)
    angle = 2 * np.pi * t * np.linspace(1e-4, p.features - 1, p.features)
    h = jnp.asarray(np.concatenate([t, np.cos(angle), np.sin(angle)], 1))
    for i in range(3):
        h = jnp.sin(w["turns"] * (h @ w[f"filter_{i}"]["kernel"] + w[f"filter_{i}"]["bias"]))
    slow, fast = np.log(100) / 1.5, np.log(100) / 0.3
    h = h @ w["filter"]["kernel"] * np.exp(-t * np.linspace(slow, fast, m.d_model))
    z = k * v
    rows = [sum(h[n - j] * z[j] for j in range(n + 1)) + w["skip"] * z[n] for n in range(len(x))]
    return out(w, q * jnp.stack(rows))
