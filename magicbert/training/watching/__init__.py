"""Who keeps an eye on the ranks: hearts, watchdog, signals, and the codes that they leave with."""
