"""Forgetting a reader: the wish goes to a topic, the workers carry it out, and a receipt says what came of it.

The wish is durable before anything else happens, so an erasure goes on after any crash. `EraseService` sends it,
follows what the workers write, removes dead letters and writes the receipt; `search_reader` looks everywhere again by
other routes than those that removed.
"""
