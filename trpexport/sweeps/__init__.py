"""Many ways to make one network smaller, each to what it saves and what it loses."""
