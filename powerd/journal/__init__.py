"""The durable record: what must survive a restart, written once a tick; raises wait for it, decreases never do."""
