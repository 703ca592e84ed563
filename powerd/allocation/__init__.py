"""Who gets what now: the convex program, its kernels, real chargers' steps, and the guard.

``allocate.Allocator`` is the one way in for the tick; ``guard.shed`` and ``guard.admit_raises`` are the two checks that
need no solver. Nothing here knows clocks, sessions or wires: arrays in, arrays out.
"""
