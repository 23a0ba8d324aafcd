"""MLPs, dense and mixture-of-experts, a file each. The contract of an MLP, a frozen dataclass of
its own fields:

module(m, ex, name)(x_BTD, ctx) -> y_BTD, statistics   statistics: {} or arrays per layer
                                                       (model/mlps/routing.py)
parameters(m) -> {group: count}                        equal to the initialised tree
active(m) -> int                                       of these, how many one token passes through
multiplied(m) -> int                                   weights of the matmuls among those (no
                                                       biases); forward FLOPs are twice that per
                                                       token
router_flops(m) -> int                                 of these, forward FLOPs of a router
work(m, ex, batch) -> Work                             FLOPs that the chosen implementation executes
                                                       on `batch` sequences (model/work.py)
state(m) -> State                                      numbers kept when decoding
                                                       (model/state.py)
n_experts, unit                                        experts that a token chooses among, 0: none;
                                                       sequences that it looks at together
apart                                                  as of a mixer
absent                                                 True where the layer has no MLP and no norm
                                                       of one
axes(m) -> [(axis, name, size)]                        what a mesh may split, as of a mixer
check(m)                                               raises ValueError, in words that say what to
                                                       change
"""
