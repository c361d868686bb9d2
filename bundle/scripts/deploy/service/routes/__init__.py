"""The routes, a module for each kind."""

from scripts.deploy.service.routes import about, datastore, docs, infer, labels, learning, page, pixels, versions

ROUTERS = [
    *(page.router, docs.router, about.router, infer.router, pixels.router, datastore.router, labels.router),
    *(learning.router, versions.router),
]
