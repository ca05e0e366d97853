"""python -m promo_svc serve|migrate"""

import asyncio
import os
import sys

from chassis.migrate import upgrade
from chassis.service import run
from chassis.settings import load

from promo_svc.app import SCHEMA, build
from promo_svc.settings import Settings

if __name__ == "__main__":
    settings = load(Settings, "PROMO_", os.environ)
    if sys.argv[1:] == ["migrate"]:
        asyncio.run(upgrade(settings.database_url, schema=SCHEMA, package="promo_svc"))
    else:
        run(build, settings)
