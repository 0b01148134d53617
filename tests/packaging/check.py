"""Holds the files under packaging/ to what the tools that read them demand, as far as that goes without those tools.

It starts no container and asks no cluster. Helm's own engine is not here: render.go stands in for it.
"""

import fnmatch
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import jsonschema
import kubernetes.client
import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "packaging/helm/onedelete"
PROGRAM, RENDER, COMPOSE_SCHEMA = sys.argv[1:4]
# Kinds of other projects: only their heads are read.
FOREIGN = {"monitoring.coreos.com/v1 ServiceMonitor"}


class Wrong(Exception):
    """What a file has wrong."""


class Loader(yaml.SafeLoader):
    """YAML in which no key stands twice."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise Wrong(f"a key twice, in line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def read(path):
    return yaml.load((ROOT / path).read_text(), Loader)


def valid(what, schema, value):
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    errors = [f"{what}: {error.json_path}: {error.message}" for error in kind(schema).iter_errors(value)]
    if errors:
        raise Wrong("\n".join(errors))


# --- Kubernetes ---------------------------------------------------------------------------------------------------------


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def typed(value, kind, path):
    """A value has the type that Kubernetes' own description gives it, down to the last member; none is made up."""
    if kind.startswith("List["):
        if not isinstance(value, list):
            raise Wrong(f"{path} must be a list")
        for at, item in enumerate(value):
            typed(item, kind[5:-1], f"{path}[{at}]")
    elif kind.startswith("Dict["):
        if not isinstance(value, dict):
            raise Wrong(f"{path} must be a table")
        for name, item in value.items():
            typed(item, kind[5:-1].split(", ")[1], f"{path}.{name}")
    elif kind in ("str", "int", "bool", "float"):
        fits = type(value).__name__ == kind
        if not fits:
            raise Wrong(f"{path} must be {kind}, and is {value!r}")
    elif kind in ("object", "datetime"):
        pass
    else:
        model = getattr(kubernetes.client, kind)
        names = {outside: inside for inside, outside in model.attribute_map.items()}
        if not isinstance(value, dict):
            raise Wrong(f"{path} must be a table")
        for name, item in value.items():
            if name not in names:
                raise Wrong(f"{path}.{name} is not known to {kind}")
            typed(item, model.openapi_types[names[name]], f"{path}.{name}")
        required = {model.attribute_map.get(inside, inside) for inside, field in model.model_fields.items() if field.is_required()}
        missing = required - value.keys()
        if missing:
            raise Wrong(f"{path} has no {missing}")


def chart(overrides):
    """The chart's objects under these values."""
    head = read(CHART / "Chart.yaml")
    values = read(CHART / "values.yaml") | overrides
    valid("values.yaml", json.loads((CHART / "values.schema.json").read_text()), values)
    data = {
        "Values": values,
        "Chart": {"Name": head["name"], "Version": head["version"], "AppVersion": head["appVersion"]},
        "Release": {"Name": "test", "Namespace": "crm", "Service": "Helm"},
    }
    told = subprocess.run([RENDER, CHART], input=json.dumps(data), text=True, capture_output=True, timeout=60)
    if told.returncode != 0:
        raise Wrong(told.stderr)
    objects = {}
    for name, text in json.loads(told.stdout).items():
        if "<no value>" in text:
            raise Wrong(f"{name}: a value is missing")
        if name.endswith(".txt"):
            continue
        for value in yaml.load_all(text, Loader):
            if value is None:
                continue
            kind = f"{value['apiVersion']} {value['kind']}"
            if kind not in FOREIGN:
                version = value["apiVersion"].rsplit("/", 1)[-1]
                typed(value, version.capitalize() + value["kind"], value["kind"])
            key = (value["kind"], value["metadata"]["name"])
            if key in objects:
                raise Wrong(f"{key} stands twice")
            objects[key] = value
    return objects


def check_chart():
    tenant = (ROOT / "config/examples/tenants/acme.toml").read_text()
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "x"}}}]
    full = {
        "tenants": {"acme": tenant},
        "networkPolicy": {"enabled": True, "callers": peers, "monitoring": peers},
        "serviceMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "p"}},
        "extraEnv": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "x"}}}],
        "imagePullSecrets": [{"name": "x"}],
        "podAnnotations": {"x": "y"},
        "nodeSelector": {"x": "y"},
        "tolerations": [{"key": "x", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
    }
    bare = {
        "networkPolicy": {"enabled": False, "callers": [], "monitoring": []},
        "podDisruptionBudget": {"enabled": False, "minAvailable": "50%"},
        "secrets": [],
        "resources": {},
        "fullnameOverride": "other",
    }
    counts = []
    for overrides in ({}, full, bare):
        objects = chart(overrides)
        counts.append(len(objects))
        consistent(objects)
    if counts != sorted(counts, reverse=True) and not counts[1] > counts[0] > counts[2]:
        raise Wrong(f"the values switch nothing on or off: {counts}")
    # The settings and the tenants are those that the program reads.
    objects = chart(full)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "tenants").mkdir()
        settings = objects["ConfigMap", "test-onedelete"]["data"]
        tenants = objects["ConfigMap", "test-onedelete-tenants"]["data"]
        for name, text in settings.items():
            (folder / name).write_text(text)
        for name, text in tenants.items():
            (folder / "tenants" / name).write_text(text)
        command([PROGRAM, "check", "--offline", "--config", folder / "onedelete.toml"])
    for wrong in (
        {"replicaCount": 0},
        {"replicas": 3},
        {"tenants": {"Not A Name": "x"}},
        {"image": {"tag": "x"}},
        {"secrets": [{"name": "x"}]},
    ):
        try:
            chart(wrong)
        except Wrong:
            continue
        raise Wrong(f"values.schema.json takes {wrong}")
    return counts


def consistent(objects):
    """What one object says of another is so."""
    of = lambda kind: [value for (each, _), value in objects.items() if each == kind]
    (deployment,) = of("Deployment")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [service["spec"]["selector"] for service in of("Service")]
    selectors += [other["spec"]["selector"]["matchLabels"] for other in of("PodDisruptionBudget")]
    selectors += [other["spec"]["podSelector"]["matchLabels"] for other in of("NetworkPolicy")]
    for selector in selectors:
        if not selector or not selector.items() <= labels:
            raise Wrong(f"{selector} does not select the pods")
    for service in of("Service"):
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                raise Wrong(f"no port {port['targetPort']}")
        exposes = {port["targetPort"] for port in service["spec"]["ports"]}
        if "admin" in exposes and service["spec"].get("clusterIP") != "None":
            raise Wrong("the admin listener stands behind the callers' address")
    for policy in of("NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            if "admin" in {port["port"] for port in rule["ports"]} and not rule.get("from"):
                raise Wrong("everybody may reach the admin listener")
    for monitor in of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        if len([s for s in of("Service") if wanted <= s["metadata"]["labels"].items()]) != 1:
            raise Wrong("the ServiceMonitor finds no service, or several")
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    if volumes != mounts:
        raise Wrong(f"{volumes} are not {mounts}")
    for volume in pod["spec"]["volumes"]:
        named = volume.get("configMap", {}).get("name")
        if named and ("ConfigMap", named) not in objects:
            raise Wrong(f"no ConfigMap {named}")
    security = container["securityContext"]
    sound = pod["spec"]["securityContext"]["runAsNonRoot"] and security["readOnlyRootFilesystem"]
    if not sound or security["allowPrivilegeEscalation"] or security["capabilities"] != {"drop": ["ALL"]}:
        raise Wrong("the container may do more than it needs")
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        if container[probe]["httpGet"] != {"path": path, "port": "admin"}:
            raise Wrong(f"{probe} does not ask {path}")


# --- Compose, Grafana, examples --------------------------------------------------------------------------------------------


def check_compose():
    compose = read("packaging/compose/compose.yaml")
    schema = json.loads(pathlib.Path(COMPOSE_SCHEMA).read_text())
    schema["$schema"] = "https://json-schema.org/draft/2019-09/schema"
    # Debian's schema is older than the project's name in the file itself.
    valid("compose.yaml", schema, {name: value for name, value in compose.items() if name != "name"})
    services = compose["services"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                if not (ROOT / "packaging/compose" / source).exists():
                    raise Wrong(f"{name}: {source} is not there")
            elif source not in compose["volumes"]:
                raise Wrong(f"{name}: no volume {source}")
        for kind in ("networks", "secrets"):
            if missing := set(service.get(kind, [])) - set(compose[kind]):
                raise Wrong(f"{name}: no {kind} {missing}")
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                raise Wrong(f"{name}: {port} is open to everybody")
    gateway = services["gateway"]
    if gateway["deploy"]["replicas"] != 3 or any(port.endswith(":9090") for port in gateway["ports"]):
        raise Wrong("three gateways, and no admin listener outside")
    shared = set(gateway["networks"]) & set(services["prometheus"]["networks"])
    if shared != {"inside"}:
        raise Wrong(f"Prometheus finds each gateway once for each of {shared}")
    # Its settings are read with a password's file that is only there in the container.
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "tenants").mkdir()
        (folder / "onedelete.toml").write_text((ROOT / "packaging/compose/onedelete.toml").read_text())
        command([PROGRAM, "check", "--offline", "--config", folder / "onedelete.toml"])
    source = read("packaging/grafana/provisioning/datasources/prometheus.yaml")["datasources"][0]
    if source["url"] != "http://prometheus:9090":
        raise Wrong(source["url"])
    provider = read("packaging/grafana/provisioning/dashboards/onedelete.yaml")["providers"][0]["options"]["path"]
    if not any(volume.split(":")[1].startswith(provider + "/") for volume in services["grafana"]["volumes"]):
        raise Wrong(f"no dashboard is mounted below {provider}")


def check_dashboard():
    board = json.loads((ROOT / "packaging/grafana/onedelete.json").read_text())
    names = [panel["title"] for panel in board["panels"]]
    ids = [panel["id"] for panel in board["panels"]]
    if len(names) != len(set(names)) or len(ids) != len(set(ids)):
        raise Wrong("two panels have the same title or id")
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        if taken & cells or place["x"] + place["w"] > 24:
            raise Wrong(f"{panel['title']} lies on another")
        taken |= cells
        if panel["type"] != "row" and panel["datasource"]["uid"] != "${datasource}":
            raise Wrong(f"{panel['title']} names a data source of its own")
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def check_examples():
    for kind, paths in (
        ("settings", ["config/default.toml", "config/examples/onedelete.toml", "packaging/compose/onedelete.toml"]),
        ("tenant", ["config/examples/tenants/acme.toml"]),
    ):
        schema = json.loads(command([PROGRAM, "schema", kind]))
        for path in paths:
            valid(path, schema, tomllib.loads((ROOT / path).read_text()))
    sound = tomllib.loads((ROOT / "config/examples/tenants/acme.toml").read_text())
    connection = sound["connections"]["support"]
    for member, value in (("stream_id", None), ("credentials", {"jwt": "bare"}), ("dialect", "none"), ("zebra", 1)):
        wrong = connection | {member: value}
        if value is None:
            del wrong[member]
        try:
            valid("", schema, sound | {"connections": {"support": wrong}})
        except Wrong:
            continue
        raise Wrong(f"the schema takes a connection with {member} = {value!r}")


# --- The image -------------------------------------------------------------------------------------------------------------


def instructions():
    text = re.sub(r"\\\n", " ", (ROOT / "packaging/Containerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [line.split(None, 1) for line in lines]


def check_image():
    """What is copied is there, is let through by .dockerignore, and is all that the manifests name."""
    lines = instructions()
    last = max(at for at, (word, _) in enumerate(lines) if word == "FROM")
    copied = []
    for word, rest in lines[:last]:
        if word == "COPY":
            *sources, _ = rest.split()
            copied += [source.removeprefix("./") for source in sources]
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for source in copied:
        if not (ROOT / source).exists():
            raise Wrong(f"{source} is not there")
        passes = True
        for rule in ignore:
            if fnmatch.fnmatch(source, rule.removeprefix("!")):
                passes = rule.startswith("!")
        if not passes:
            raise Wrong(f".dockerignore keeps {source} back")
    for source in [*ROOT.glob("src/**/*.rs"), *ROOT.glob("adapters/**/*.rs")]:
        for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
            place = (source.parent / name).resolve().relative_to(ROOT).parts[0]
            if place not in copied:
                raise Wrong(f"{source} needs {place}, which is not copied")
    end = {word: rest for word, rest in lines[last:] if word in ("USER", "ENTRYPOINT", "CMD", "HEALTHCHECK")}
    if not re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", end["USER"]):
        raise Wrong(f"the user must be a number, and not root's: {end['USER']}")
    entry = json.loads(end["ENTRYPOINT"])
    health = json.loads(end["HEALTHCHECK"].split(" CMD ", 1)[1])
    if entry != ["/usr/bin/onedelete"] or health[0] != entry[0]:
        raise Wrong("the program stands elsewhere")
    for arguments in (health[1:], json.loads(end["CMD"])):
        command([PROGRAM, *arguments, "--help"])
    with tempfile.TemporaryDirectory() as folder:
        for source in copied:
            subprocess.run(["cp", "-r", ROOT / source, folder], check=True)
        # Cargo finds every file that the manifests name, and the lock file is whole.
        command(["cargo", "metadata", "--locked", "--offline", "--format-version", "1"], cwd=folder)
    # The base has the C library and what belongs to it, and nothing else.
    linked = set(re.findall(r"^\s*(\S+)", command(["ldd", PROGRAM]), re.M))
    allowed = {"linux-vdso.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"}
    if linked - allowed:
        raise Wrong(f"the base image has no {linked - allowed}")


def command(words, **options):
    told = subprocess.run([str(word) for word in words], text=True, capture_output=True, timeout=120, **options)
    if told.returncode != 0:
        raise Wrong(f"{' '.join(map(str, words))}: {told.stderr}")
    return told.stdout


def main():
    try:
        counts = check_chart()
        print(f"chart: {counts[0]}, {counts[1]} and {counts[2]} objects under three sets of values")
        check_compose()
        queries = check_dashboard()
        print(f"compose and dashboard: {len(queries)} queries")
        check_examples()
        check_image()
        print("examples and image")
    except Wrong as wrong:
        sys.exit(f"packaging: {wrong}")
    # For promtool, which knows no variables of Grafana's.
    pathlib.Path(sys.argv[4]).write_text(rules(queries))


def rules(queries):
    plain = [query.replace("$__rate_interval", "5m") for query in queries]
    records = [{"record": f"panel:query:{at}", "expr": query} for at, query in enumerate(plain)]
    return json.dumps({"groups": [{"name": "dashboard", "rules": records}]})


main()
