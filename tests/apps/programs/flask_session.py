"""Store a user of the documentation's Flask application and print the cookie of their session."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

module: Any = import_module(sys.argv[1])
with module.app.app_context():
    module.db.create_all()
    module.db.session.add(module.User(id=1))
    module.db.session.commit()
serializer = module.app.session_interface.get_signing_serializer(module.app)
print(f"session={serializer.dumps({'_user_id': '1', '_fresh': True})}")
