"""How cost grows with the number of contacts: CPU time and memory from 1 to 1,000,000, each size at a gateway of its own on
SQLite; a line through the points; the plot.

It asks over its own connection, since JSON Lines are read as a stream and answered before the deletion is over.
"""

import http.client
import json
import math
import time

from .figures import load
from .programs import KEY, Gateway, ids

SIZES = [1, 10, 100, 1_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
# The most that a JSON body may have; more is JSON Lines.
MOST_JSON = 10_000
PER_CALL = 100


def measure(mock, sizes):
    """A point a size. What one deletion takes is too little to see for the small ones: they are repeated."""
    points = []
    for size in sizes:
        # The gateway may use both cores, as it would: the load is one caller.
        with Gateway(mock, "sqlite:ledger.db", PER_CALL, core="0,1") as gateway:
            load(gateway, gateway.request(1), connections=1, count=20)
            idle = gateway.memory_mib()
            times = max(1, min(1_000, 20_000 // size)) if size <= MOST_JSON else 1
            if size > MOST_JSON:
                content = lines(size)
            before, began = gateway.cpu_s(), time.monotonic()
            if size <= MOST_JSON:
                load(gateway, gateway.request(size), connections=1, count=times)
            else:
                stream(gateway, content)
            seconds, cpu = time.monotonic() - began, gateway.cpu_s() - before
            memory = gateway.memory_mib("VmHWM") - idle
            points.append({"contacts": size, "cpu_s": cpu / times, "seconds": seconds / times, "memory_mib": max(0, memory)})
    return points


def lines(count):
    """The body in pieces of 2,000 lines."""
    all_ = ids(count)
    return ["".join(f'{{"id":"{id_}"}}\n' for id_ in all_[at:at + 2_000]).encode() for at in range(0, count, 2_000)]


def stream(gateway, pieces):
    """Sends a deletion as JSON Lines, and waits until it is over."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/x-ndjson"}
    caller = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=600)
    caller.request("POST", "/v1/deletions?connection=support", iter(pieces), headers, encode_chunked=True)
    answer = caller.getresponse()
    told = json.loads(answer.read())
    assert answer.status == 202, told
    caller.close()
    while told["state"] != "finished":
        time.sleep(0.05)
        caller = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=600)
        caller.request("GET", "/v1/deletions?limit=1", headers={"authorization": headers["authorization"]})
        told = json.loads(caller.getresponse().read())["deletions"][0]
        caller.close()
    assert told["counts"]["deleted"] == told["counts"]["requested"], told["counts"]


def fit(points, key):
    """The line `a + b × contacts` with the least relative distances, and the greatest of these.

    Absolute ones would let the largest size decide alone.
    """
    weighted = [(point["contacts"], point[key], 1 / max(point[key], 1e-9) ** 2) for point in points]
    total = sum(w for _, _, w in weighted)
    mean_x = sum(w * x for x, _, w in weighted) / total
    mean_y = sum(w * y for _, y, w in weighted) / total
    slope = sum(w * (x - mean_x) * (y - mean_y) for x, y, w in weighted)
    slope /= sum(w * (x - mean_x) ** 2 for x, _, w in weighted)
    base = mean_y - slope * mean_x
    off = max(abs((base + slope * x) / y - 1) for x, y, _ in weighted)
    return base, slope, off


def draw(points, file):
    """Two panels side by side: CPU time on logarithmic scales with its line, and memory."""
    base, slope, off = fit(points, "cpu_s")
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 400" font-family="system-ui, sans-serif" font-size="12">',
        '<rect width="960" height="400" fill="#fff"/>',
    ]
    times = [(point["contacts"], point["cpu_s"] * 1e6) for point in points]
    line = [(10 ** (step / 20), (base + slope * 10 ** (step / 20)) * 1e6) for step in range(121)]
    told = f"line: {base * 1e6:,.0f} µs + {slope * 1e6:.2f} µs a contact; farthest point {100 * off:.0f} % off"
    units = {1e2: "100 µs", 1e3: "1 ms", 1e4: "10 ms", 1e5: "100 ms", 1e6: "1 s", 1e7: "10 s", 1e8: "100 s"}
    parts += panel(70, "CPU time of the gateway", told, times, line, units)
    memory = [(point["contacts"], max(point["memory_mib"], 0.1)) for point in points]
    told = f"at most {max(point['memory_mib'] for point in points):.1f} MiB; the bound is 64 MiB"
    bound = [(1, 64), (1e6, 64)]
    units = {0.1: "0.1 MiB", 1: "1 MiB", 10: "10 MiB", 100: "100 MiB"}
    parts += panel(575, "Peak memory above idle", told, memory, bound, units)
    parts.append("</svg>\n")
    file.write_text("\n".join(parts))


def panel(left, title, told, points, line, units):
    top, width, height = 60, 345, 280
    low, high = math.log10(min(units)), math.log10(max(units))
    used = [value for _, value in points + line]
    low, high = max(low, math.floor(math.log10(min(used)))), min(high, math.ceil(math.log10(max(used))))

    def at(contacts, value):
        x = left + width * math.log10(contacts) / 6
        return f"{x:.1f}", f"{top + height * (high - math.log10(value)) / (high - low):.1f}"

    out = [
        f'<text x="{left}" y="24" font-size="15" font-weight="600">{title}</text>',
        f'<text x="{left}" y="44" fill="#555">{told}</text>',
    ]
    for unit, name in units.items():
        if low <= math.log10(unit) <= high:
            y = float(at(1, unit)[1])
            out.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="#ddd"/>')
            out.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end" fill="#555">{name}</text>')
    for power in range(7):
        x = left + width * power / 6
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + height}" stroke="#eee"/>')
        out.append(f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle" fill="#555">{10 ** power:,}</text>')
    out.append(f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle">contacts of one deletion</text>')
    path = " ".join(",".join(at(*point)) for point in line)
    out.append(f'<polyline points="{path}" fill="none" stroke="#c2410c" stroke-width="1.5" stroke-dasharray="5 4"/>')
    for contacts, value in points:
        x, y = at(contacts, value)
        out.append(f'<circle cx="{x}" cy="{y}" r="4" fill="#1d4ed8"><title>{contacts:,}: {value:,.1f}</title></circle>')
    return out
