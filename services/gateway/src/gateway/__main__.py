"""python -m gateway"""

import os

from chassis.service import run
from chassis.settings import load

from gateway.app import build
from gateway.settings import Settings

if __name__ == "__main__":
    run(build, load(Settings, "GATEWAY_", os.environ))
