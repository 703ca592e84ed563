"""What powerd tells people: the check of a site, tables and plots."""
