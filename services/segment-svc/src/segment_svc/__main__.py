"""python -m segment_svc all|api|worker|migrate|topics"""

import asyncio
import os
import sys
from functools import partial

from chassis.migrate import upgrade
from chassis.service import run
from chassis.settings import load

from segment_svc.app import SCHEMA, build
from segment_svc.consumer import create_topics
from segment_svc.settings import Settings

if __name__ == "__main__":
    role = sys.argv[1] if len(sys.argv) > 1 else "all"
    settings = load(Settings, "SEGMENT_", os.environ)
    if role == "migrate":
        asyncio.run(upgrade(settings.database_url, schema=SCHEMA, package="segment_svc"))
    elif role == "topics":
        asyncio.run(create_topics(settings))
    elif role in {"all", "api", "worker"}:
        run(partial(build, role=role), settings)
    else:
        sys.exit(__doc__)
