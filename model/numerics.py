"""In which precision sums and products are taken."""

import functools

import jax
import jax.numpy as jnp


def precise(x):
    """`x` in the dtype of softmaxes, norms, router and loss: at least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def precision(*operands):
    """That of a product: float32 is multiplied in float32 everywhere, where GPUs would take TF32 of
    it and TPUs bfloat16.
    """
    return jax.lax.Precision.HIGHEST if all(a.dtype == jnp.float32 for a in operands) else None


def einsum(eq: str, *operands, **more):
    """``jnp.einsum`` at `precision`."""
    return jnp.einsum(eq, *operands, precision=precision(*operands), **more)


def scores(eq: str, x, y):
    """``einsum(eq, x, y)`` summed and kept in float32 at least, for a softmax to read. Its gradient
    is multiplied in the dtype of x and y, as that of every product.
    """
    if x.dtype == jnp.promote_types(x.dtype, jnp.float32):
        return einsum(eq, x, y)
    return _scores(eq, x, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(eq, x, y):
    return einsum(eq, x, y, preferred_element_type=jnp.float32)


def _scores_fwd(eq, x, y):
    return _scores(eq, x, y), (x, y)


def _scores_bwd(eq, operands, g):
    inputs, of_g = eq.split("->")
    of_x, of_y = inputs.split(",")
    (x, y), g = operands, g.astype(operands[0].dtype)
    return einsum(f"{of_g},{of_y}->{of_x}", g, y), einsum(f"{of_g},{of_x}->{of_y}", g, x)


_scores.defvjp(_scores_fwd, _scores_bwd)
