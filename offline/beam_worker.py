"""One worker process of the local runner, as runners.py starts it: Beam's own, quiet on the terminal.

Beam sends what a worker logs to the process that started it, which shows what matters. Left alone, a worker also prints
all of it: the first warning of an import gives it a handler for that, and none does so once there is another.
"""

import logging

logging.getLogger().addHandler(logging.NullHandler())

if __name__ == "__main__":
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])
