"""Inner loops of the batched engine as numba compiles them (extra `speed`), for CPUs; `available` says when they are used.

`sampling`: an epoch's samples, bit by bit what tensor operations give. `linear`: a local step of linear heads.
`private_items`: all local steps over private item rows, made of `touched_items`, `router` and `optimizers`. The steps add
in another order than tensor operations, so they agree with these to rounding (1e-9 in float64). Every call runs without
Python's lock, so that blocks run side by side. Uncompiled all of them are plain Python functions (`py_func`).
"""
