"""Runs a command beside a gateway over mock upstreams, and ends as it does.

    tests/served.py COMMAND [ARGUMENT]...

The command finds ONEDELETE_URL, ONEDELETE_KEY and ONEDELETE_CONTROL (the mocks' control API) in its environment. The
connections are those of the description's examples. It asks for no wrong-key limit: whoever tests refusals guesses often.
ONEDELETE is the program. Nothing is kept, and nothing but loopback is reached.
"""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "python"))
sys.dont_write_bytecode = True
import onedelete  # noqa: E402

UPSTREAMS = ["support=kore_ai", "portal=onlyoffice", "lists=talkdesk", "sales=wethod", "door=bas_ip"]


def main(command):
    os.environ["ONEDELETE__SERVER__MAX_WRONG_KEYS_PER_MIN"] = "0"
    os.environ["ONEDELETE__LOG__FILTER"] = "info"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "tenants").mkdir()
        with onedelete.Mocks(folder / "tenants" / "mock.toml", *UPSTREAMS) as mocks:
            with onedelete.Gateway(folder, mocks.key) as gateway:
                # What nobody reads would fill the pipe and stop the gateway.
                threading.Thread(target=drain, args=[gateway.process.stderr], daemon=True).start()
                found = {"ONEDELETE_URL": gateway.url, "ONEDELETE_KEY": mocks.key, "ONEDELETE_CONTROL": mocks.control}
                code = subprocess.run(command, env={**os.environ, **found}, check=False).returncode
                if gateway.process.poll() is not None:
                    print("served: the gateway ended", file=sys.stderr)
                    return 1
                return code


def drain(pipe):
    try:
        for line in pipe:
            if '"level":"ERROR"' in line:
                print(line, end="", file=sys.stderr)
    except ValueError:
        pass  # It was closed at the end.


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
