"""What is compared: the gateway, its peers and the mock; how each is built, started and asked.

It measures nothing.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .machine import GATEWAY_CORE, OTHER_CORE, Process, free_port

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
RELEASE = TARGET / "release"
# A disk, and not memory, as /tmp may be: the durable store is measured on it.
SCRATCH = TARGET / "compare"
NODE = SCRATCH / "node"
KEY = "odk_a-key-of-the-comparison-0123456789"
CREDENTIAL = "eyJhbGciOiJIUzI1NiJ9.e30.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
BULK = "/agentassist/api/v1/public/st-1/contacts/bulk-delete"
LUA = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
SLOW_MS = 20


def ids(count):
    """Ids of kore_ai: 24 hexadecimal digits."""
    return [hashlib.md5(str(number).encode()).hexdigest()[:20] + "0000" for number in range(count)]


def numbers(count):
    """Ids of wethod: whole numbers from 1."""
    return [str(1_000_000 + number) for number in range(count)]


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def build(install):
    """Builds the gateway and the Rust peers in release, and says what else is there: names of peers, and why others are not."""
    if install:
        needed = []
        if not shutil.which("nginx") or not LUA.exists():
            needed += ["nginx-light", "libnginx-mod-http-lua", "lua-cjson"]
        if not shutil.which("node"):
            needed += ["nodejs", "npm"]
        if not shutil.which("taskset"):
            needed += ["util-linux"]
        if needed:
            subprocess.run(["apt-get", "update"], check=True, stdout=subprocess.DEVNULL)
            subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", *needed], check=True)
    # Its packages do not belong among the sources.
    NODE.mkdir(parents=True, exist_ok=True)
    for name in ["package.json", "package-lock.json", "server.mjs"]:
        shutil.copy(HERE / "node" / name, NODE)
    if install and not (NODE / "node_modules").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True)
    build_rust()
    missing = {}
    if not shutil.which("nginx"):
        missing["nginx"] = missing["nginx + Lua"] = "nginx is not installed"
    elif not LUA.exists():
        missing["nginx + Lua"] = "libnginx-mod-http-lua is not installed"
    if not shutil.which("node"):
        missing["Node"] = "node is not installed"
    elif not (NODE / "node_modules").exists():
        missing["Node"] = f"its packages are not installed (npm ci in {NODE})"
    return [name for name in PEERS if name not in missing], missing


def build_rust(peers=()):
    """Builds the gateway and the Rust peers, or those alone that are named, into one folder."""
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}
    chosen = [word for name in peers for word in ("--bin", name)]
    for command, folder in [
        (["cargo", "build", "--release", "--locked", "--bin", "onedelete"], ROOT),
        (["cargo", "build", "--release", "--locked", *chosen], HERE / "peers"),
    ]:
        if subprocess.run(command, cwd=folder, env=environment).returncode != 0:
            sys.exit(f"{' '.join(command)} failed in {folder}")


class Mock(Process):
    """The instant upstream, and the one that takes its time."""

    def __init__(self):
        fast, slow = free_port(), free_port()
        super().__init__([RELEASE / "mock", f"{fast}:0", f"{slow}:{SLOW_MS}"], OTHER_CORE, SCRATCH / "mock.log")
        self.fast, self.slow, self.port = f"127.0.0.1:{fast}", f"127.0.0.1:{slow}", fast
        if not self.listens(fast):
            sys.exit("the mock did not start")

    def request(self, count):
        """What a plain proxy passes on; asked of the mock itself, it is what everything else is compared with."""
        headers = {"accountId": "acc-1", "auth": CREDENTIAL}
        return f"DELETE {BULK}", headers, compact({"ids": ids(count)})


class Peer(Process):
    """A gateway that keeps no books."""

    def __init__(self, name, mock, prefix=()):
        self.name, self.port = name, free_port()
        addresses = [str(self.port), mock.fast, mock.slow]
        command, environment = PEERS[name](addresses)
        super().__init__([*prefix, *command], GATEWAY_CORE, SCRATCH / f"{name.replace(' ', '')}.log", environment)
        self.translates = name != "nginx"
        self.mock = mock
        if not self.listens(self.port):
            sys.exit(f"{name} did not start: {self.log}")

    def request(self, count):
        if not self.translates:
            return self.mock.request(count)
        return "POST /v1/delete", {}, compact({"connection": "support", "ids": ids(count)})

    def slow_request(self, count):
        return "POST /v1/delete", {}, compact({"connection": "slow", "ids": numbers(count)})

    def is_right(self, body):
        """Whether an answer says that all was deleted but the last."""
        results = json.loads(body)["results"]
        return [result["status"] for result in results] == ["deleted"] * (len(results) - 1) + ["failed"]


def nginx(configuration):
    def command(addresses):
        port, fast, slow = addresses
        folder = SCRATCH / "nginx"
        (folder / "temporary").mkdir(parents=True, exist_ok=True)
        # Its worker is somebody else, if it may be.
        (folder / "temporary").chmod(0o777)
        words = {"FOLDER": folder, "SOURCE": HERE / "nginx", "PORT": port, "FAST": fast, "SLOW": slow}
        for name in [configuration, "common.conf"]:
            text = (HERE / "nginx" / name).read_text()
            for word, value in words.items():
                text = text.replace(f"@{word}@", str(value))
            (folder / name).write_text(text)
        return ["nginx", "-p", "/usr/share/nginx", "-c", folder / configuration], {}

    return command


PEERS = {
    "limit": lambda addresses: ([RELEASE / "limit", *addresses], {}),
    "nginx": nginx("plain.conf"),
    "nginx + Lua": nginx("lua.conf"),
    "axum + reqwest": lambda addresses: ([RELEASE / "naive", *addresses], {}),
    "Node": lambda addresses: (["node", NODE / "server.mjs", *addresses], {"NODE_ENV": "production"}),
}


class Gateway(Process):
    """`onedelete serve`, with everything on: keys, limits, metrics, the request log at info."""

    name, translates = "onedelete", True

    def __init__(self, mock, store="memory:", per_call=10_000, tenants=None, prefix=(), core=GATEWAY_CORE):
        folder = SCRATCH / "gateway"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "tenants").mkdir(parents=True)
        self.port, admin = free_port(), free_port()
        (folder / "onedelete.toml").write_text(
            f'[server]\nlisten = "127.0.0.1:{self.port}"\nadmin_listen = "127.0.0.1:{admin}"\n'
            # All callers of the comparison are one address.
            "max_connections_per_address = 2000\n"
            f'[store]\nurl = "{store}"\n[upstream]\nmax_in_flight_per_tenant = 64\n[log]\nformat = "json"\n'
        )
        (folder / "tenants/compare.toml").write_text(tenant("compare", KEY, mock, per_call))
        for name in tenants or []:
            (folder / f"tenants/{name}.toml").write_text(tenants[name])
        command = [*prefix, RELEASE / "onedelete", "serve", "--config", folder / "onedelete.toml"]
        super().__init__(command, core, SCRATCH / "gateway.log")
        self.folder = folder
        if not self.listens(self.port, 300):
            sys.exit(f"the gateway did not start: {self.log.read_text()[-2000:]}")

    def request(self, count):
        return self.ask("support", ids(count))

    def slow_request(self, count):
        return self.ask("slow", numbers(count))

    def ask(self, connection, contacts):
        headers = {"authorization": f"Bearer {KEY}"}
        return "POST /v1/deletions", headers, compact({"connection": connection, "contacts": contacts})

    def is_right(self, body):
        results = json.loads(body)["results"]
        return [result["outcome"] for result in results] == ["deleted"] * (len(results) - 1) + ["not_found"]


def tenant(name, key, mock, per_call):
    """A tenant's file with a connection of each kind that is asked for here."""
    limits = 'limits = { rate = "off", max_in_flight = 64 }\n'
    return (
        f'id = "{name}"\ndefault_connection = "support"\n'
        f'[[api_keys]]\nname = "k"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'
        f'[connections.support]\ndialect = "kore_ai"\nbase_url = "http://{mock.fast}"\nstream_id = "st-1"\n'
        f'account_id = "acc-1"\nmax_contacts_per_call = {per_call}\ncredentials = {{ jwt = "plain:{CREDENTIAL}" }}\n{limits}'
        f'[connections.slow]\ndialect = "wethod"\nbase_url = "http://{mock.slow}"\ncompany = "acme"\n'
        f'credentials = {{ token = "plain:{CREDENTIAL}" }}\n{limits}'
    )


def many_tenants(count):
    """So many tenants with five connections each, one a dialect."""
    from_examples = {
        "kore": 'dialect = "kore_ai"\nbase_url = "https://platform.kore.ai"\nstream_id = "st-{n}"\naccount_id = "a-{n}"\n'
                'credentials = {{ client_id = "cs-{n}", client_secret = "plain:a-secret-of-32-bytes-or-more-{n}" }}\n',
        "sales": 'dialect = "wethod"\nbase_url = "https://api.wethod.com"\ncompany = "c-{n}"\n'
                 'credentials = {{ token = "plain:token-{n}" }}\n',
        "portal": 'dialect = "onlyoffice"\nbase_url = "https://p-{n}.example.com"\n'
                  'credentials = {{ token = "plain:token-{n}" }}\n',
        "lists": 'dialect = "talkdesk"\nbase_url = "https://api.talkdeskapp.com"\n'
                 'record_list_id = "d9be9636-528f-45e8-bdf8-27ffd9ee6085"\n'
                 'credentials = {{ token_url = "https://c-{n}.talkdeskid.com/oauth/token", client_id = "i-{n}", '
                 'client_secret = "plain:secret-{n}" }}\n',
        "door": 'dialect = "bas_ip"\nbase_url = "https://d-{n}.example.com/api/v0"\npath = "contacts/items/link"\n'
                'credentials = {{ token = "plain:token-{n}" }}\n',
    }
    files = {}
    for number in range(count):
        key = hashlib.sha256(f"odk_key-of-tenant-{number}".encode()).hexdigest()
        text = f'id = "t{number}"\n[[api_keys]]\nname = "k"\nsha256 = "{key}"\n'
        for name, connection in from_examples.items():
            text += f"[connections.{name}]\n" + connection.format(n=number)
        files[f"t{number}"] = text
    return files
