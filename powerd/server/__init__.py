"""The gRPC door: validates, converts, posts one message, and carries grants out. It never solves.

``serve.start_server`` starts it; ``core.Core`` is what it needs of the daemon; docs/protocol.md is its manual.
"""
