"""Figures as a table: for the terminal, and between the markers of docs/performance.md. Raw figures go to a file as JSON.

It judges by the bounds that stand here; what a figure means is said in docs/performance.md.
"""

import json

from .figures import median
from .programs import ROOT, SCRATCH

PAGE = ROOT / "docs/performance.md"
BEGIN, END = "<!-- figures: written by benches/compare/run -->", "<!-- figures end -->"
# CPU a request, as a multiple of the limit's.
BOUNDS = {1: 1.6, 100: 1.6, 10_000: 1.7}


def tables(figures):
    """The tables as Markdown, and whether every bound was kept."""
    rows, peers = [], []
    work = figures.get("work")
    if work:
        sizes = sorted(work["limit"], key=int)
        cost = {name: {size: median(work[name][size], "cpu_us") for size in sizes} for name in work}
        peers = [
            "| CPU a request, as a multiple of the limit's | " + " | ".join(f"N = {int(size):,}" for size in sizes) + " |",
            "|---|" + "---|" * len(sizes),
        ]
        for name in sorted(cost, key=lambda name: cost[name][sizes[0]]):
            cells = [f"{cost[name][size] / cost['limit'][size]:.2f}" for size in sizes]
            if name == "limit":
                cells = [f"1 ({cost[name][size]:,.1f} µs)" for size in sizes]
            peers.append(f"| {name} | " + " | ".join(cells) + " |")
        for size in sizes:
            ratio = cost["onedelete"][size] / cost["limit"][size]
            rows.append((f"CPU a request against the limit, N = {int(size):,}", BOUNDS[int(size)], ratio, "most", "×"))
    durable = figures.get("durable")
    if durable:
        rates = {store: median(list_, "rate") for store, list_ in durable.items()}
        ratio = rates["sqlite:ledger.db"] / rates["memory:"]
        rows.append(("requests/s with SQLite against `memory:`, 64 callers, N = 1", 0.5, ratio, "least", "×"))
    late = figures.get("latency")
    if late:
        for part in ["p50", "p99"]:
            added = {name: median(late[name], part) - median(late["mock"], part) for name in late}
            # Whoever was faster than the upstream alone was measured while something else took the machine.
            ratio = added["onedelete"] / added["limit"] if min(added.values()) >= 0 and added["limit"] else float("inf")
            both = f"{added['onedelete']:.0f} and {added['limit']:.0f} µs"
            what = f"added {part} at 2,000 requests/s against the limit's ({both})"
            rows.append((what, 1.5, ratio, "most", "×"))
    slow = figures.get("one_by_one")
    if slow:
        of = {name: sorted(list_)[len(list_) // 2] for name, list_ in slow.items()}
        others = ", ".join(f"{name} {ms:.0f}" for name, ms in of.items() if name != "onedelete")
        what = f"1,000 contacts one by one, upstream 20 ms, 64 in flight ({others})"
        rows.append((what, 352, of["onedelete"], "most", " ms"))
    idle = figures.get("idle")
    if idle:
        rows.append(("memory, idle", 20, idle["warm_mib"], "most", " MiB"))
        rows.append((f"memory with {idle['held']:,} idle connections", 70, idle["held_mib"], "most", " MiB"))
    many = figures.get("tenants")
    if many:
        what = f"start with 10,000 tenants of 5 connections ({many['cpu_s']:.2f} s of CPU)"
        rows.append((what, 2, many["seconds"], "most", " s"))
        rows.append(("memory a connection until it is used", 3, many["kib_a_connection"], "most", " KiB"))
    instructions = figures.get("instructions")
    if instructions:
        rows.append(("user instructions a request, N = 1", 80_000, instructions, "most", ""))
    growth = figures.get("growth")
    if growth:
        largest = max(growth, key=lambda point: point["contacts"])
        what = f"{largest['contacts']:,} contacts as a stream, SQLite"
        rows.append((what, 50_000, largest["contacts"] / largest["seconds"], "least", "/s"))
        rows.append((f"{what}: memory above idle", 64, largest["memory_mib"], "most", " MiB"))
    lines = ["| figure | bound | reached | |", "|---|---|---|---|"]
    for what, bound, reached, side, unit in rows:
        kept = reached <= bound if side == "most" else reached >= bound
        sign = "≤" if side == "most" else "≥"
        verdict = "" if kept else "**not kept**"
        shown = "not measurable" if reached == float("inf") else f"{number(reached)}{unit}"
        lines.append(f"| {what} | {sign} {number(bound)}{unit} | {shown} | {verdict} |")
    kept = all(bool(line) and "not kept" not in line for line in lines)
    return "\n".join(([*peers, ""] if peers else []) + lines), kept


def number(value):
    if value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")


def keep_raw(figures):
    """Adds figures to what earlier runs left in target/compare/figures.json, and returns all of it."""
    file = SCRATCH / "figures.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    known.update(plain(figures))
    file.write_text(json.dumps(known, indent=1) + "\n")
    return known


def plain(figures):
    """As they come back from a file."""
    return json.loads(json.dumps(figures))


def write_page(text):
    """Puts the tables between the markers of the page."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
