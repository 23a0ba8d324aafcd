"""Sequence mixers, a file each. The contract of a mixer, a frozen dataclass of its own fields:

module(m, ex, name)(x_BTD, ctx) -> y_BTD  causal: y[:, t] depends on x[:, :t+1] alone; ctx:
                                          model.context.Context
parameters(m) -> {group: count}           equal to the initialised tree
multiplied(m) -> int                      weights of the matmuls that a token passes through (no
                                          biases, no norms)
map_flops(m, causal) -> int               per token, 2 x multiply-adds between tokens, on the full
                                          T x T map or the attended pairs alone
work(m, ex, batch) -> Work                FLOPs executed on `batch` sequences (model/work.py)
state(m) -> State                         numbers kept when decoding (model/state.py)
axes(m) -> [(axis, name, size)]           what a mesh may split: logical axis of RULES
                                          (launch/devices/mesh.py), what it is called, its
                                          size
apart                                     True where no token sees another document, by
                                          ctx.document_BT; without it documents=apart is refused
check(m)                                  raises ValueError, in words that say what to change
"""
