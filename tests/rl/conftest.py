from tests.knowledge.test_knowledge_parts import server  # noqa: F401 (a fixture)
