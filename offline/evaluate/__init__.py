"""How good retrieval is: metrics, held-out readers, exact search."""
