"""The last outcomes of each route, kept for those who look for a better policy."""
