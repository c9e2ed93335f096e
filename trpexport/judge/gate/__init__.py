"""The gate: a candidate network against its baseline, rule by rule, right about noise."""
