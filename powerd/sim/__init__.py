"""The simulator: real recorded sessions against the real daemon, in lock-step, with the truth kept apart from powerd.

sessions   recorded sessions from ACN-Data files
cars       what the cars at the posts do with a ceiling
plant      which currents flow, and which limit they break, by its own arithmetic
policies   who says the ceilings without a daemon: equal share, uncontrolled
daemon     who says them with one: a child process, real gRPC, simulated charger controllers
run        the lock-step loop over all of these
verify     settled loads once more through an unbalanced power flow
summary    the figures; plot: the picture; command: ``powerd simulate``
"""
