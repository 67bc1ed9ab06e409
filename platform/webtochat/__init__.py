"""webtochat: from raw web pages to a served chat model, on Ray."""

__version__ = "0.1.0"
