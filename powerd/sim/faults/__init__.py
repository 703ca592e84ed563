"""The fault simulation: the real core and the real client core in a world of lost messages, crashes and lying meters.

Everything is deterministic: a *scenario* is a site and a list of timed happenings, and nothing else is drawn.

kinds      what can happen, and the rules whose work is counted
sites      small sites: 3 to 12 EVSEs, two nested limits, all classes of controllers
scenario   scenarios from seeds, and as files
channel    messages on their way
post       posts, actuators and cars: the truth
caller     how a controller asks by single calls
owner      a charger controller's process around ``powerd.client.ControllerCore``
disk       the journal's file and its writer, slow or refusing
leader     the daemon's process around ``powerd.control.Stepper`` and the journal's ``Gate``: inbox, publishing, crashes
world      all of these, half a second at a time
claims     the invariants, asserted from the truth
tally      what was covered
shrink     a failing scenario made small
mutants    broken rules that the simulation must catch
command    ``python -m powerd.sim.faults``
"""
