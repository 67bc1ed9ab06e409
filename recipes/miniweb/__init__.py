"""A small web with known truth, for recipes that run offline: prose, stories, sums, stated facts and noise."""
