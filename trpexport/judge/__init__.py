"""Whether a network is good enough: classes, predictions, paired statistics, the gate."""
