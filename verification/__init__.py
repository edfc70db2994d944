"""layerscope against independent implementations: `python -m verification` rewrites docs/verification.md."""
