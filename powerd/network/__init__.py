"""What the wires allow: load a drawing, see who feeds whom, make limit rows, hold them against pandapower.

Where to look, from the file to the answer:

| group | modules |
|---|---|
| from files to a drawing | ``drawing``, ``wires``, ``netfile``, ``netrows``, ``imported`` |
| its faults | ``references``, ``ratings``, ``charging``, ``topology``, ``protection`` |
| what an element stands | ``curves`` (standards), ``tolerance`` (of a branch) |
| the drawing as columns | ``parts``, ``compile``, ``electrical``, ``operation`` |
| who feeds whom | ``graph``, ``supply``: islands, loops, the tree, for given switch positions |
| limit rows | ``taps``, ``phasors``, ``cones``, ``losses``, ``blocks``, ``balance``, ``names``, ``tree`` -> ``rows`` |
| rows of the tick | ``states`` (uncertain positions), ``ways``, ``moves`` (R9), ``metering``, ``in_use`` (phases) |
| promises before it is built | ``admission``, ``admission_faults``, ``planned`` (R5), ``standing`` (R6, R9) |
| which switch to move | ``interlocks``, ``plan``, ``plan_grid``, ``plan_kernels``, ``plan_milp``, ``playbook`` |
| AC power flow | ``models``, ``sweep``, ``meshed``, ``taken`` -> ``flow``; ``judge``, ``flow_check`` for the tick |
| pandapower, the oracle | ``build``, ``loading`` |
| ways in | ``load`` (site file -> columns or faults), ``capped`` (other transformers), ``kept`` (between starts) |
"""
