"""Install Sentry, with all its defaults, in a worker that loads this module by `--include`.

The variable SENTRY says when: `import`, as in most projects, or `child`, after System Tasks.
"""

import os

import sentry_sdk
from celery.signals import worker_process_init


def init(**_: object) -> None:
    # No server answers there.
    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0)


if os.environ["SENTRY"] == "import":
    init()
else:
    worker_process_init.connect(init, weak=False)
