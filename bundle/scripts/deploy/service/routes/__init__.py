"""The routes, a module for each kind."""

from scripts.deploy.service.routes import about, datastore, docs, infer, learning, page, versions

ROUTERS = [page.router, docs.router, about.router, infer.router, datastore.router, learning.router, versions.router]
