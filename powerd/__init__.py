"""powerd: the power manager for EV charging sites. The README draws the house; start there."""
