#!/usr/bin/python3
"""Users, projects, roles and the catalog; what the tenant needs goes into tenant.json."""
import json
import os

from keystoneauth1 import session
from keystoneauth1.identity import v3
from keystoneclient.v3 import client

env = os.environ
url = "http://127.0.0.1:%s/v3" % env["KEYSTONE"]


def login(user, password, project):
    auth = v3.Password(auth_url=url, username=user, password=password, project_name=project, user_domain_id="default", project_domain_id="default")
    return client.Client(session=session.Session(auth=auth), region_name=env["REGION"])


k = login("admin", env["ADMIN_PASSWORD"], "admin")
roles = {r.name: r for r in k.roles.list()}
roles["creator"] = k.roles.create("creator")  # Barbican's
service = k.projects.create("service", "default")
for name, kind, where in (
    ("nova", "compute", ":%s/v2.1" % env["NOVA"]),
    ("glance", "image", ":" + env["GLANCE"]),
    ("placement", "placement", ":" + env["PLACEMENT"]),
    ("neutron", "network", ":" + env["NEUTRON"]),
    ("barbican", "key-manager", ":" + env["BARBICAN"]),
):
    user = k.users.create(name, default_project=service, password=env["SERVICE_PASSWORD"])
    k.roles.grant(roles["admin"], user=user, project=service)
    s = k.services.create(name, type=kind)
    for interface in ("public", "internal", "admin"):
        k.endpoints.create(s, "http://127.0.0.1" + where, interface=interface, region=env["REGION"])
tenant = k.projects.create("tenant", "default")
alice = k.users.create("alice", password="alice-password", domain="default")
for name in ("member", "creator"):
    k.roles.grant(roles[name], user=alice, project=tenant)
own = login("alice", "alice-password", "tenant")
secret = "application-secret"
app = own.application_credentials.create(name="attest", roles=[{"name": "member"}, {"name": "creator"}], user=alice.id, secret=secret)
with open(env["WORK"] + "/tenant.json", "w") as f:
    json.dump({"auth": url, "project": tenant.id, "id": app.id, "secret": secret}, f)
