"""``python -m strongroom``."""

import sys

from .app.cli import main

sys.exit(main())
