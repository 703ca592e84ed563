"""``python -m powerd`` is ``powerd``."""

from powerd.cli import app

app()
