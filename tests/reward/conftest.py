from tests.inference.tiny import ray_here  # noqa: F401 (a fixture)
