"""Holds a controller of any language to docs/protocol.md: ``python -m powerd.client.conformance -- COMMAND ARGS...``.

It plays a daemon whose every message is scripted, starts the candidate once a scene, and judges what that writes to its
posts and what it says on its stream. ``stage`` is the daemon and the candidate, ``scenes`` are the rules.

Not held: single calls (RequestSetpoint), rule 12 (phases), what survives a restart of the candidate's process (its
highest epoch and its stops, rule 11), cars found at its start (rule 10), the pauses between two connections,
measurements, the end that a write carries to the post (rule 7), and acks of a write that came too late (rule 8).
"""
