"""How a budget becomes runs; nothing here trains. Read the files in this order:

arms       what a sweep compares: parts and layers put into one base model
ladder     what a size stands for: width, depth, heads, learning rate
grid       arms x sizes x budgets x seeds to runs, each counted before it runs
fairness   what is equal between dense and MoE, checked, and what cannot be
step_time  seconds of a step and memory of a run on a device; calibration measures them here
cost       money, energy and carbon of device-hours
budget     a recipe at another budget or scale
summary    the whole answer of `isoflop plan`
forecast   what was predicted, kept beside a sweep and compared with what it took
"""
