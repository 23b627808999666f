"""`python -m client_sdk` is the console script `backhaul`."""

from __future__ import annotations

import sys

from client_sdk.cli import main

sys.exit(main())
