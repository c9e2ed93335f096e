"""Training networks to low rank: the TRP step, recipes, and a loop that resumes exactly."""
