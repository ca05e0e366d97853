"""python -m content_svc serve|migrate"""

import asyncio
import os
import sys

from chassis.migrate import upgrade
from chassis.service import run
from chassis.settings import load

from content_svc.app import SCHEMA, build
from content_svc.settings import Settings

if __name__ == "__main__":
    settings = load(Settings, "CONTENT_", os.environ)
    if sys.argv[1:] == ["migrate"]:
        asyncio.run(upgrade(settings.database_url, schema=SCHEMA, package="content_svc"))
    else:
        run(build, settings)
