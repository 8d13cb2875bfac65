"""Query requests in; rows of `user_queries` and query lists out.

Two workers read the same requests: `signals` embeds the reader's own latest signals, in milliseconds, so that there is
always something to retrieve by; `interests` has the student write the list, which takes as long as a model takes.
"""
