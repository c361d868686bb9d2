"""The routes, a module for each kind."""

from scripts.service.routes import about, datastore, infer, learning, page, versions

ROUTERS = [page.router, about.router, infer.router, datastore.router, learning.router, versions.router]
